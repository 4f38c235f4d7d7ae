#include "bench/settings.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace refract {
namespace settings_test {

TEST(BenchSettings, SizesAreAListOfNumbersAboveZero) {
  EXPECT_EQ(parse_sizes("16,512", "--tokens"), (std::vector<int64_t>{16, 512}));
  EXPECT_EQ(parse_sizes("", "--tokens", "7"), (std::vector<int64_t>{7}));
  for (const char* wrong : {"", "0", "-1", "4,", ",4", "4 5", "4x", "four"})
    EXPECT_THROW(parse_sizes(wrong, "--tokens"), Error) << wrong;
}

TEST(BenchSettings, AGivenPrecisionStays) {
  BenchSettings settings;
  settings.overrides = {"train.precision=fp32"};
  EXPECT_EQ(settings.with_precision(), settings.overrides);
  settings.overrides = {"train.device=cpu"};
  EXPECT_EQ(settings.with_precision(), settings.overrides);
  settings.seconds = 0;
  EXPECT_THROW(settings.with_precision(), Error);
}

}  // namespace settings_test
}  // namespace refract
