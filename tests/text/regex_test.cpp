#include "text/regex.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace refract {
namespace regex_test {

TEST(Regex, RefusesWhatPcre2ReadsDifferently) {
  for (const char* pattern : {"[a[b]]", "[a-z&&b]", "a{1,3}+", R"([\W])", R"([\S])", "[]a]",
                              "[[:^digit:]]", "[[:alpha:]]", "[[:graph:]]"}) {
    EXPECT_THROW(Regex{pattern}, Error) << pattern;
  }
  EXPECT_THROW(Regex{"(a"}, Error);
}

}  // namespace regex_test
}  // namespace refract
