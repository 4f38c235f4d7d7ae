#include "core/toml.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "support/errors.h"

namespace refract {
namespace toml_test {

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

TEST(Toml, NamesAndBracketsNestSoFar) {
  const auto dotted = [](int parts) {
    std::string name = "a";
    for (int i = 1; i < parts; ++i) name += ".a";
    return name;
  };
  EXPECT_EQ(parse_toml(dotted(90) + " = 1.5", "t").dump().size(), 90 * 5 + 90 + 3u);
  for (const std::string& deep :
       {dotted(20'000) + " = 1", "[" + dotted(20'000) + "]", "a = " + std::string(20'000, '['),
        "x = 1\n[[" + dotted(200) + "]]\n",
        "a = {" + dotted(60) + " = {" + dotted(60) + " = 1}}"}) {
    EXPECT_TRUE(testing::has(testing::error_of([&] { parse_toml(deep, "r.toml"); }),
                             "deeper than 100 levels"));
  }
  EXPECT_TRUE(testing::has(testing::error_of([&] { parse_toml("\n\n" + dotted(200), "r.toml"); }),
                           "r.toml, line 3"));
}

// Dots and brackets inside of strings and comments are text, and each value starts anew.
TEST(Toml, TextIsNoNesting) {
  const std::string dots(300, '.'), brackets(300, '[');
  const std::string text = "a = '" + dots + "' # " + brackets + "\nb = \"\\\"" + brackets +
                           "\"\nc = '''\n" + dots + "'\n'''\nd = \"\"\"" + dots + "\"\"\"\n";
  const nlohmann::json tree = parse_toml(text, "t");
  EXPECT_EQ(tree["a"], dots);
  EXPECT_EQ(tree["b"], "\"" + brackets);
  EXPECT_EQ(tree["d"], dots);
  std::string list = "list = [";
  for (int i = 0; i < 300; ++i) list += "1.5, ";
  EXPECT_EQ(parse_toml(list + "]", "t")["list"].size(), 300u);
}

}  // namespace toml_test
}  // namespace refract
