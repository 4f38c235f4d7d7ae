#include "core/expression.h"

#include <gtest/gtest.h>

#include <string>

#include "support/errors.h"

namespace refract {
namespace expression_test {

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

TEST(Expression, BracketsAndSignsNestSoFar) {
  // A text of `count` signs around or before a number.
  const auto nested = [](size_t count, char open, const char* close) {
    std::string text(count, open);
    text.append("2");
    for (size_t i = 0; i < count; ++i) text.append(close);
    return text;
  };
  EXPECT_DOUBLE_EQ(evaluate_expression(nested(99, '(', ")"), {}), 2);
  EXPECT_DOUBLE_EQ(evaluate_expression(nested(98, '-', ""), {}), 2);
  for (const char sign : {'(', '-'}) {
    const std::string deep = nested(75'000, sign, "");
    const std::string message = testing::error_of([&] { evaluate_expression(deep, {}); });
    EXPECT_TRUE(testing::has(message, "deeper than 100 levels"));
    EXPECT_LT(message.size(), 400u);
  }
}

}  // namespace expression_test
}  // namespace refract
