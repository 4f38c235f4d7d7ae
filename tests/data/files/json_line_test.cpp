#include "data/files/json_line.h"

#include <gtest/gtest.h>

#include <string>

#include "support/errors.h"

namespace refract {
namespace json_line_test {

std::string text(const std::string& line) { return json_line_text(line, "text", "f:7"); }

TEST(JsonLine, ReadsWhatPythonReads) {
  EXPECT_EQ(text(R"({"text":"a\u00e9\ud83d\ude00\/\t"})"), "a\xc3\xa9\xf0\x9f\x98\x80/\t");
  EXPECT_EQ(text(" {\"n\" : [NaN, -Infinity, {}, [], -0.5e+7] , \"text\" : \"b\" } \r"), "b");
  EXPECT_EQ(text(R"({"text":"a","o":{"text":"c"},"text":"d"})"), "d");
  EXPECT_EQ(text(R"({"te\u0078t":""})"), "");
  EXPECT_EQ(text("{\"text\":\"\xff\"}"), "\xff");  // repaired where texts are encoded
  const std::string deep = "{\"m\":" + std::string(100000, '[') + std::string(100000, ']');
  EXPECT_EQ(text(deep + ",\"text\":\"e\"}"), "e");
}

TEST(JsonLine, LoneSurrogatesAreReplaced) {
  EXPECT_EQ(text(R"({"text":"\ud83d"})"), "\xef\xbf\xbd");
  EXPECT_EQ(text(R"({"text":"\udc00x"})"), "\xef\xbf\xbdx");
  EXPECT_EQ(text(R"({"text":"\ud83d\ud83d\ude00"})"), "\xef\xbf\xbd\xf0\x9f\x98\x80");
  EXPECT_EQ(text(R"({"text":"\ud83d\u0041"})"),
            "\xef\xbf\xbd"
            "A");
}

TEST(JsonLine, SaysWhatIsWrongAndWhere) {
  const auto refuses = [](const std::string& line, const std::string& words) {
    testing::expect_error([&] { text(line); }, {"f:7: ", words});
  };
  refuses("[1]", "not an object");
  refuses("{\"text\":\"a\"", "ends inside");
  refuses("{\"text\":\"a\\", "ends inside");
  refuses("{\"text\"", "ends inside");
  refuses("{\"text\":\"a\"}x",
          "goes on behind its object; a .jsonl file has one a line (character 13)");
  refuses("{\"text\":\"a\",}", "key in quotes (character 13)");
  refuses("{\"text\" \"a\"}", "no colon");
  refuses("{\"a\":01,\"text\":\"a\"}", "no JSON value (character 6)");
  refuses("{\"a\":1.,\"text\":\"a\"}", "no JSON value");
  refuses("{\"a\":nan,\"text\":\"a\"}", "no JSON value");
  refuses("{\"a\":[1 2],\"text\":\"a\"}", "neither a comma nor a ]");
  refuses("{\"text\":\"\\u12g4\"}", "four digits");
  refuses("{\"text\":\"\\q\"}", "does not know");
  refuses("{\"text\":\"a\nb\"}", "control character");
  refuses("{\"text\":[\"a\"]}", "'text' is a list");
  refuses("{\"text\":\"a\",\"text\":null}", "'text' is null");
  refuses("{}", "no field 'text' (it has: )");
}

}  // namespace json_line_test
}  // namespace refract
