#include "core/system/arguments.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <limits>
#include <string>
#include <vector>

#include "support/errors.h"

namespace refract {
namespace arguments_test {

struct Values {
  std::string kind;
  std::vector<std::string> overrides;
  int64_t steps = 7;
  double rate = 0.5;
};

Values parsed(std::vector<std::string> words) {
  Values values;
  CLI::App app;
  CommandLine line(app);
  line.positional("kind", values.kind, "a word", false);
  line.positional("overrides", values.overrides, "settings");
  line.option("--steps", values.steps, "a whole number");
  line.option("--rate", values.rate, "a number");
  for (std::string& word : words) word = marked(word.c_str());
  app.parse(std::vector<std::string>(words.rbegin(), words.rend()));
  return values;
}

TEST(Arguments, BracketsStayAsTheyAreTyped) {
  const Values values = parsed({"[a, b]", "x=[1, 2]", "[c]"});
  EXPECT_EQ(values.kind, "[a, b]");
  EXPECT_EQ(values.overrides, (std::vector<std::string>{"x=[1, 2]", "[c]"}));
}

TEST(Arguments, NumbersAreReadWhole) {
  EXPECT_EQ(parsed({"--steps", "9223372036854775807"}).steps, std::numeric_limits<int64_t>::max());
  EXPECT_EQ(parsed({"--steps", "1e3"}).steps, 1000);
  EXPECT_EQ(parsed({"--rate", "+2.5"}).rate, 2.5);
  EXPECT_EQ(parsed({}).steps, 7);
}

TEST(Arguments, OtherNumbersAreRefusedByName) {
  const auto refusal = [](const std::string& option, const std::string& value) {
    return testing::error_of([&] { parsed({option, value}); });
  };
  EXPECT_EQ(refusal("--steps", "2.5"), "--steps takes an integer, not '2.5'");
  EXPECT_EQ(refusal("--steps", "5 apples"), "--steps takes a number, not '5 apples'");
  EXPECT_EQ(refusal("--rate", "inf"), "--rate takes a finite number, not 'inf'");
  EXPECT_EQ(refusal("--rate", ""), "--rate takes a number, not ''");
}

}  // namespace arguments_test
}  // namespace refract
