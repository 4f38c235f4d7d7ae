#include "decode/text_stream.h"

#include <gtest/gtest.h>

#include "text/simple_tokenizers.h"

namespace refract {
namespace {

// A byte each time: characters of one, two and four bytes.
TEST(TextStream, GivesACharacterWithTheTokenThatCompletesIt) {
  const auto tokenizer = make_byte_tokenizer();
  TextStream stream(*tokenizer);
  std::vector<std::string> parts;
  for (const unsigned char byte : std::string("aé😀b"))
    parts.push_back(stream.add(static_cast<TokenId>(byte)));
  EXPECT_EQ(parts, (std::vector<std::string>{"a", "", "é", "", "", "", "😀", "b"}));
}

}  // namespace
}  // namespace refract
