#include "core/expression.h"

#include <gtest/gtest.h>

#include "support/errors.h"

namespace refract {
namespace {

TEST(Expression, ComputesWithNames) {
  EXPECT_DOUBLE_EQ(evaluate_expression("22*N/100", {{"N", 50.0}}), 11.0);
  EXPECT_DOUBLE_EQ(evaluate_expression(" 2 + 3 * (4 - 1) / -2 ", {}), -2.5);
  EXPECT_DOUBLE_EQ(evaluate_expression("1e6", {}), 1e6);
}

TEST(Expression, ErrorsShowThePlace) {
  for (const char* bad : {"", "2*", "(1", "M", "1 1", "1/0"})
    EXPECT_THROW(evaluate_expression(bad, {}), Error) << bad;
  EXPECT_EQ(testing::error_of([] {
              evaluate_expression("22*M", {{"N", 1.0}});
            }),
            "the expression '22*M' needs a number or a name at character 4");
}

}  // namespace
}  // namespace refract
