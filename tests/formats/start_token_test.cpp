#include "formats/start_token.h"

#include <gtest/gtest.h>

#include "text/simple_tokenizers.h"

namespace refract {
namespace start_token_test {

TEST(StartToken, IsTheModelsElseTheTokenizers) {
  const auto bytes = make_byte_tokenizer();
  EXPECT_EQ(start_token({}, *bytes), 256);
  EXPECT_EQ(start_token({}, *make_char_tokenizer("ab")), 0);
  Carried carried;
  carried.config = R"({"bos_token_id": 3})";
  EXPECT_EQ(start_token(carried, *bytes), 3);
  carried.generation = R"({"bos_token_id": 5})";
  EXPECT_EQ(start_token(carried, *bytes), 5);
  carried.generation = R"({"bos_token_id": null})";
  EXPECT_EQ(start_token(carried, *bytes), 3);
  carried.drop_tokenizer();
  EXPECT_EQ(start_token(carried, *bytes), 256);
}

}  // namespace start_token_test
}  // namespace refract
