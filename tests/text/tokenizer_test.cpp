#include "text/tokenizer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace tokenizer_test {

using testing::TemporaryFolder;

std::string error_of(const std::string& specification) {
  return testing::error_of([&] { open_tokenizer(specification); });
}

TEST(Open, SaysWhatWasLookedFor) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of(folder.str("none")).find("no such file or folder"), std::string::npos);
  EXPECT_NE(error_of("chars").find("characters of a corpus"), std::string::npos);
  EXPECT_NE(error_of(folder.path().string()).find("tokenizer.json"), std::string::npos);
  std::ofstream(folder / "chars.json") << "{}";
  EXPECT_NE(error_of(folder.path().string()).find("chars.json"), std::string::npos);
  std::ofstream(folder / "tokenizer.model") << "junk";
  EXPECT_NE(error_of(folder.path().string()).find("not a SentencePiece model"), std::string::npos);
}

// Which of the two is opened shows in the error: neither is whole.
TEST(Open, TakesTheSentencePieceModelOnlyInPlaceOfItsTranslation) {
  const TemporaryFolder folder;
  std::ofstream(folder / "tokenizer.model") << "junk";
  for (const char* damaged : {"", "{\"model\": {\"type\": \"BPE\", \"byte_fall", "[]", "{}",
                              "{\"model\": {\"type\": \"BPE\"}}"}) {
    std::ofstream(folder / "tokenizer.json") << damaged;
    EXPECT_NE(error_of(folder.path().string()).find("tokenizer.json"), std::string::npos)
        << damaged;
  }
  for (const char* translated : {"{\"model\": {\"type\": \"Unigram\"}}",
                                 "{\"model\": {\"type\": \"BPE\", \"byte_fallback\": true}}"}) {
    std::ofstream(folder / "tokenizer.json") << translated;
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

}  // namespace tokenizer_test
}  // namespace refract
