#include "text/json_trouble.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>

namespace refract {
namespace json_trouble_test {

std::string trouble(const std::string& text) {
  try {
    return nlohmann::json::parse(text).at("key").get<std::string>();
  } catch (const std::exception& error) {
    return json_trouble(error);
  }
}

TEST(JsonTrouble, IsSaidInOurWords) {
  EXPECT_EQ(trouble("{\"key\": [1, 2"), "it is cut off: its JSON ends early");
  EXPECT_EQ(trouble(""), "it is cut off: its JSON ends early");
  EXPECT_EQ(trouble("{\"key\": \"a"), "it is cut off: its JSON ends early");
  EXPECT_EQ(trouble("{\n \"key\" 1}"), "line 2, column 8 is no JSON");
  EXPECT_EQ(trouble("{\"key\": 1}"), "a value in it is missing or has another form than it should");
  EXPECT_EQ(trouble("{}"), "a value in it is missing or has another form than it should");
  EXPECT_EQ(trouble("{\"key\": \"fine\"}"), "fine");
}

TEST(JsonTrouble, OtherExceptionsKeepTheirText) {
  EXPECT_EQ(json_trouble(std::runtime_error("no merge of that name")), "no merge of that name");
}

}  // namespace json_trouble_test
}  // namespace refract
