#include "text/bpe/byte_level.h"

#include <gtest/gtest.h>

#include <optional>
#include <string>

#include "text/utf8.h"

namespace refract {
namespace byte_level_test {

TEST(ByteLevel, IsABijectionThatKeepsAscii) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all.push_back(static_cast<char>(byte));
  const std::string characters = bytes_to_characters(all);
  EXPECT_TRUE(is_valid_utf8(characters));
  EXPECT_EQ(characters_to_bytes(characters), all);
  EXPECT_EQ(bytes_to_characters(" a\n"), "ĠaĊ");
  EXPECT_EQ(characters_to_bytes("a b"), std::nullopt);  // the space stands for no byte
  EXPECT_EQ(characters_to_bytes("日"), std::nullopt);
}

}  // namespace byte_level_test
}  // namespace refract
