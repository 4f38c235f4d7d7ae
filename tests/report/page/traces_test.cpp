#include "report/page/traces.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace refract {
namespace traces_test {

TEST(SeriesColor, ManySeriesHaveDifferentColours) {
  for (const int count : {3, 10, 11, 40}) {
    std::set<std::string> seen;
    for (int i = 0; i < count; ++i) seen.insert(series_color(i, count));
    EXPECT_EQ(seen.size(), static_cast<size_t>(count));
  }
}

}  // namespace traces_test
}  // namespace refract
