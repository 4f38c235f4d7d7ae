#include "runs/inspect/kind_list.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/errors.h"
#include "transforms/kind.h"

namespace refract {
namespace kind_list_test {

TEST(KindList, HoldsEveryKindAndNone) {
  const std::vector<nlohmann::json> kinds = list_kinds("");
  ASSERT_EQ(kinds.size(), registered_kinds().size() + 1);
  EXPECT_EQ(kinds.back()["kind"], "none");
  const std::string text = kinds_text(kinds);
  for (const KindEntry& entry : registered_kinds())
    EXPECT_NE(text.find(entry.name), std::string::npos) << entry.name;
}

TEST(KindList, OneHasItsParameters) {
  const std::vector<nlohmann::json> kinds = list_kinds("lora");
  ASSERT_EQ(kinds.size(), 1U);
  EXPECT_EQ(kinds[0]["stands_for"], "linear layers");
  const std::string text = kind_text(kinds[0]);
  EXPECT_NE(text.find("rank"), std::string::npos);
  EXPECT_NE(text.find("stands for linear layers\n"), std::string::npos);
  EXPECT_NE(kind_text(list_kinds("none")[0]).find("It has no parameters."), std::string::npos);
  EXPECT_NE(testing::error_of([] { list_kinds("lorra"); }).find("\"lorra\""), std::string::npos);
}

}  // namespace kind_list_test
}  // namespace refract
