#include "decode/text_stream.h"

#include <gtest/gtest.h>

#include "text/simple_tokenizers.h"
#include "text/utf8.h"

namespace refract {
namespace text_stream_test {

// A byte each time: characters of one, two and four bytes.
TEST(TextStream, GivesACharacterWithTheTokenThatCompletesIt) {
  const auto tokenizer = make_byte_tokenizer();
  TextStream stream(*tokenizer);
  std::vector<std::string> parts;
  for (const unsigned char byte : std::string("aé😀b"))
    parts.push_back(stream.add(static_cast<TokenId>(byte)));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "é", "", "", "", "😀", "b"}));
}

// A tokenizer whose pieces 1, 2 and 3 are words that lose their space at the beginning of a text,
// and whose other ids are bytes of a character, each of which shows as U+FFFD until all are there.
// So does SentencePiece.
class WordPieces final : public Tokenizer {
 public:
  std::vector<TokenId> encode(std::string_view, bool) const override { return {}; }
  std::string decode(std::span<const TokenId> ids) const override {
    static const char* const words[] = {"", " one", " two", " three"};
    std::string out, bytes;
    for (const TokenId id : ids) {
      if (id > 3) {
        bytes.push_back(static_cast<char>(id));
        continue;
      }
      out += shown(bytes) + words[id];
      bytes.clear();
    }
    out += shown(bytes);
    return out.starts_with(' ') ? out.substr(1) : out;
  }
  int64_t vocab_size() const override { return 256; }
  std::optional<TokenId> end_of_text() const override { return std::nullopt; }
  void save(const std::filesystem::path&) const override {}
  std::string description() const override { return "words"; }

 private:
  static std::string shown(const std::string& bytes) {
    const size_t whole = complete_utf8(bytes);
    std::string out = bytes.substr(0, whole);
    for (size_t i = whole; i < bytes.size(); ++i) out += "\uFFFD";
    return out;
  }
};

TEST(Continuation, KeepsTheSpaceOfItsFirstWord) {
  const WordPieces tokenizer;
  EXPECT_EQ(continuation(tokenizer, {1}, {2, 3}), " two three");
  EXPECT_EQ(continuation(tokenizer, {}, {2, 3}), "two three");
  EXPECT_EQ(continuation(tokenizer, {1, 2}, {}), "");
  TextStream stream(tokenizer, {1});
  EXPECT_EQ(stream.add(2), " two");
  EXPECT_EQ(stream.add(3), " three");
}

TEST(Continuation, BeginsInsideACharacterOfThePrompt) {
  const WordPieces words;
  EXPECT_EQ(continuation(words, {1, 0xC3}, {0xA9, 2}), "é two");
  // Bytes are what they are, so joined to the prompt's they are the character.
  EXPECT_EQ(continuation(*make_byte_tokenizer(), {'a', 0xC3}, {0xA9, 'b'}),
            "\xA9"
            "b");
}

TEST(TextStream, WaitsForTheBytesOfACharacter) {
  const WordPieces tokenizer;
  TextStream stream(tokenizer, {1});
  EXPECT_EQ(stream.add(0xC3), "");
  EXPECT_EQ(stream.add(0xA9), "é");
  EXPECT_EQ(stream.add(0xE2), "");
  EXPECT_EQ(stream.rest(), "\uFFFD");
  EXPECT_EQ(stream.rest(), "");
}

}  // namespace text_stream_test
}  // namespace refract
