#include "text/simple_tokenizers.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>
#include <vector>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace simple_tokenizers_test {

using testing::TemporaryFolder;
using Ids = std::vector<TokenId>;

TEST(Bytes, AreTheirOwnIds) {
  const auto bytes = open_tokenizer("bytes");
  EXPECT_EQ(bytes->encode("a\xFF"), (Ids{'a', 255}));
  EXPECT_EQ(bytes->decode(Ids{'a', 255, 256}), "a\xFF");
  EXPECT_EQ(bytes->vocab_size(), 257);
  EXPECT_EQ(bytes->end_of_text(), 256);
  EXPECT_EQ(bytes->description(), "bytes");
  const TemporaryFolder folder;
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
  EXPECT_TRUE(testing::has(testing::error_of([] { make_char_tokenizer("abc")->encode("abéb"); }),
                           "'é' (U+00E9) at character 2"));
}

TEST(Chars, SaveAndOpenAgain) {
  const std::string all = std::string("\0\x01\"\\\t", 5) + "é\uFFFD😀";
  const auto chars = make_char_tokenizer(all);
  const TemporaryFolder folder;
  chars->save(folder.path());
  const auto again = open_tokenizer(folder.path().string());
  EXPECT_EQ(again->encode(all), chars->encode(all));
  EXPECT_EQ(again->decode(again->encode(all)), all);
  EXPECT_EQ(open_tokenizer(folder.str("chars.json"))->vocab_size(), 8);
}

}  // namespace simple_tokenizers_test
}  // namespace refract
