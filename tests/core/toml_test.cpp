#include "core/toml.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "support/errors.h"

namespace refract {
namespace {

TEST(Toml, KeepsRegularExpressionsAndTableArrays) {
  const std::string text =
      "[[transform]]\nmatch = 'model\\.layers\\.\\d+'\nrank = 4\n\n[[transform]]\nkind = "
      "\"none\"\n";
  const nlohmann::json tree = parse_toml(text, "t");
  EXPECT_EQ(tree["transform"][0]["match"], "model\\.layers\\.\\d+");
  EXPECT_EQ(parse_toml(to_toml(tree), "t"), tree);
  EXPECT_NE(to_toml(tree).find("'model\\.layers\\.\\d+'"), std::string::npos);
}

TEST(Toml, ErrorsNameTheLine) {
  EXPECT_TRUE(testing::has(testing::error_of([] { parse_toml("a = 1\nb = \n", "recipe.toml"); }),
                           "recipe.toml, line 2"));
}

}  // namespace
}  // namespace refract
