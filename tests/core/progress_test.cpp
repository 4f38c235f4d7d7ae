#include "core/progress.h"

#include <gtest/gtest.h>

namespace refract {
namespace progress_test {

TEST(Format, DurationsCountsBytes) {
  EXPECT_EQ(format_duration(3723), "1:02:03");
  EXPECT_EQ(format_duration(65.4), "1:05");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_bytes(1.5 * 1024 * 1024), "1.5 MiB");
}

}  // namespace progress_test
}  // namespace refract
