#include "report/table.h"

#include <gtest/gtest.h>

#include <limits>

#include "core/error.h"

namespace refract {
namespace table_test {

TEST(Table, AlignsColumns) {
  Table table({{"layer"}, {"parameters", Align::kRight}});
  table.add_row({"up_proj", "1,474,560"});
  table.add_row({"o", "96"});
  table.add_rule();
  table.add_row({"all", "1,474,656"});
  EXPECT_EQ(table.str(),
            "layer    parameters\n"
            "-------  ----------\n"
            "up_proj   1,474,560\n"
            "o                96\n"
            "-------  ----------\n"
            "all       1,474,656\n");
}

TEST(Table, CountsCodePointsNotBytes) {
  Table table({{"α"}, {"x"}});
  table.add_row({"é", "1"});
  EXPECT_EQ(table.str(), "α  x\n-  -\né  1\n");
  EXPECT_EQ(display_width("aé█"), 3u);
}

TEST(Table, MissingCellsStayEmptyAndTooManyAreAnError) {
  Table table({{"a"}, {"b"}});
  table.add_row({"1"});
  EXPECT_EQ(table.str(), "a  b\n-  -\n1\n");
  EXPECT_THROW(table.add_row({"1", "2", "3"}), Error);
  EXPECT_THROW(Table({}), Error);
}

TEST(Table, FormatsNumbers) {
  EXPECT_EQ(format_integer(0), "0");
  EXPECT_EQ(format_integer(999), "999");
  EXPECT_EQ(format_integer(1000), "1,000");
  EXPECT_EQ(format_integer(-1234567), "-1,234,567");
  EXPECT_EQ(format_integer(-123), "-123");
  EXPECT_EQ(format_integer(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
  EXPECT_EQ(format_number(1.6941e18), "1.694e+18");
  EXPECT_EQ(format_number(0.0006), "0.0006");
  EXPECT_EQ(format_number(2.5), "2.5");
  EXPECT_EQ(format_number(std::numeric_limits<double>::quiet_NaN()), "nan");
  EXPECT_EQ(format_fixed(1.699, 2), "1.70");
  EXPECT_EQ(format_fixed(std::numeric_limits<double>::quiet_NaN(), 2), "-");
  EXPECT_EQ(format_percent(0.3119), "31.2%");
}

}  // namespace table_test
}  // namespace refract
