#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "core/error.h"
#include "text/tokenizer.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using Ids = std::vector<TokenId>;

class Folder {
 public:
  Folder()
      : path_(fs::temp_directory_path() / fs::path("refract_text_" + std::to_string(::getpid()))) {
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

std::string error_of(const std::string& specification) {
  try {
    open_tokenizer(specification);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Bytes, AreTheirOwnIds) {
  const auto bytes = open_tokenizer("bytes");
  EXPECT_EQ(bytes->encode("a\xFF"), (Ids{'a', 255}));
  EXPECT_EQ(bytes->decode(Ids{'a', 255, 256}), "a\xFF");
  EXPECT_EQ(bytes->vocab_size(), 257);
  EXPECT_EQ(bytes->end_of_text(), 256);
  EXPECT_EQ(bytes->description(), "bytes");
  Folder folder;
  bytes->save(folder.path());
  EXPECT_EQ(open_tokenizer(folder.path().string())->description(), "bytes");
}

TEST(Chars, AreOrderedByCodePoint) {
  const auto chars = make_char_tokenizer("héllo 😀\nh");
  EXPECT_EQ(chars->encode("\n hloé😀"), (Ids{0, 1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(chars->decode(Ids{2, 5, 6, 99}), "hé😀\uFFFD");
  EXPECT_EQ(chars->vocab_size(), 7);
  EXPECT_EQ(chars->end_of_text(), std::nullopt);
  EXPECT_EQ(chars->description(), "chars (7)");
}

TEST(Chars, NameAnUnknownCharacterAndItsPlace) {
  try {
    make_char_tokenizer("abc")->encode("abéb");
    FAIL() << "the unknown character was accepted";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("'é' (U+00E9) at character 2"), std::string::npos)
        << error.what();
  }
}

TEST(Chars, SaveAndOpenAgain) {
  const std::string all = std::string("\0\x01\"\\\t", 5) + "é\uFFFD😀";
  const auto chars = make_char_tokenizer(all);
  Folder folder;
  chars->save(folder.path());
  const auto again = open_tokenizer(folder.path().string());
  EXPECT_EQ(again->encode(all), chars->encode(all));
  EXPECT_EQ(again->decode(again->encode(all)), all);
  EXPECT_EQ(open_tokenizer((folder.path() / "chars.json").string())->vocab_size(), 8);
}

TEST(Open, SaysWhatWasLookedFor) {
  EXPECT_NE(error_of("/no/such/folder").find("no such file or folder"), std::string::npos);
  EXPECT_NE(error_of("chars").find("characters of a corpus"), std::string::npos);
  Folder folder;
  EXPECT_NE(error_of(folder.path().string()).find("tokenizer.json"), std::string::npos);
  std::ofstream(folder.path() / "chars.json") << "{}";
  EXPECT_NE(error_of(folder.path().string()).find("chars.json"), std::string::npos);
  std::ofstream(folder.path() / "tokenizer.model") << "junk";
  EXPECT_NE(error_of(folder.path().string()).find("not a SentencePiece model"), std::string::npos);
}

// Which of the two is opened shows in the error: neither is whole.
TEST(Open, TakesTheSentencePieceModelOnlyInPlaceOfItsTranslation) {
  Folder folder;
  std::ofstream(folder.path() / "tokenizer.model") << "junk";
  for (const char* damaged : {"", "{\"model\": {\"type\": \"BPE\", \"byte_fall", "[]", "{}",
                              "{\"model\": {\"type\": \"BPE\"}}"}) {
    std::ofstream(folder.path() / "tokenizer.json") << damaged;
    EXPECT_NE(error_of(folder.path().string()).find("tokenizer.json"), std::string::npos)
        << damaged;
  }
  for (const char* translated : {"{\"model\": {\"type\": \"Unigram\"}}",
                                 "{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true}}"}) {
    std::ofstream(folder.path() / "tokenizer.json") << translated;
    EXPECT_NE(error_of(folder.path().string()).find("tokenizer.model"), std::string::npos)
        << translated;
  }
}

TEST(EncodeAll, KeepsTheOrderAndPassesErrorsOn) {
  const auto chars = make_char_tokenizer("0123456789");
  std::vector<std::string> numbers;
  for (int i = 0; i < 1000; ++i) numbers.push_back(std::to_string(i));
  std::vector<std::string_view> documents(numbers.begin(), numbers.end());
  const auto ids = encode_all(*chars, documents, 4);
  ASSERT_EQ(ids.size(), 1000u);
  for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(chars->decode(ids[i]), numbers[i]);
  EXPECT_TRUE(encode_all(*chars, {}, 4).empty());
  documents[500] = "x";
  EXPECT_THROW(encode_all(*chars, documents, 4), Error);
}

}  // namespace
}  // namespace refract
