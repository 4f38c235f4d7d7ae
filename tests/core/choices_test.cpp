#include "core/choices.h"

#include <gtest/gtest.h>

#include "core/error.h"

namespace refract {
namespace choices_test {

TEST(RequireChoice, NamesTheNearestWord) {
  EXPECT_NO_THROW(require_choice("--by", "weights", {"weights", "activations"}));
  try {
    require_choice("--by", "activation", {"weights", "activations"});
    ADD_FAILURE() << "no error";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(),
                 "--by activation is not one of weights, activations; did you mean activations?");
    EXPECT_EQ(error.code(), ExitCode::kUsage);
  }
}

}  // namespace choices_test
}  // namespace refract
