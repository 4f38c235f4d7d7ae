#include "report/run/transform_rows.h"

#include <gtest/gtest.h>

#include <string>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace transform_rows_test {

std::vector<TransformRow> rows_of(const std::string& text) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "transforms.toml", text);
  return read_transform_rows(folder / "transforms.toml");
}

TEST(TransformRows, AreRulesWithWhatTheyDid) {
  const std::vector<TransformRow> rows = rows_of(
      "# 24 modules, 393216 -> 12288 parameters\n[[transform]]\nmatch = 'a.*'\nkind = 'low_rank'\n"
      "# left alone: 1 module, 65536 -> 65536 parameters\n"
      "# 2 modules, 8 -> 4 parameters\n[[transform]]\nmatch = 'b'\nkind = 'lora'\n");
  ASSERT_EQ(rows.size(), 3U);
  EXPECT_EQ(rows[0].match, "a.*");
  EXPECT_EQ(rows[0].kind, "low_rank");
  EXPECT_EQ(rows[0].modules, 24);
  EXPECT_EQ(rows[0].dense_parameters, 393216);
  EXPECT_EQ(rows[0].parameters, 12288);
  EXPECT_EQ(rows[1].kind, "");
  EXPECT_EQ(rows[1].modules, 1);
  EXPECT_EQ(rows[2].match, "b");
  EXPECT_EQ(rows[2].parameters, 4);
}

TEST(TransformRows, OtherCommentsAreNoRules) {
  EXPECT_TRUE(rows_of("# -1 modules, 2 -> 3 parameters\n").empty());
  EXPECT_TRUE(rows_of("# 1 modules, 2 -> 3 parameters, and more\n").empty());
  EXPECT_TRUE(rows_of("# 99999999999999999999 modules, 2 -> 3 parameters\n").empty());
  // Long enough for what calls itself once for each character to run out of stack.
  EXPECT_TRUE(rows_of("# " + std::string(2'000'000, '1') + " modules\n").empty());
}

TEST(TransformRows, RulesOfAnotherFormHaveNoKind) {
  for (const char* rules : {"transform = 3\n", "transform = ['a']\n", "transform = {kind = 'a'}\n",
                            "transform = [{kind = 1, match = []}]\n"}) {
    const std::vector<TransformRow> rows =
        rows_of(std::string(rules) + "# 1 module, 2 -> 3 parameters\n");
    ASSERT_EQ(rows.size(), 1U) << rules;
    EXPECT_EQ(rows[0].kind + rows[0].match, "") << rules;
  }
  testing::expect_error([] { rows_of("transform = \n"); }, {"transforms.toml"});
}

}  // namespace transform_rows_test
}  // namespace refract
