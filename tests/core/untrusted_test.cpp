#include "core/untrusted.h"

#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "support/errors.h"

namespace refract {
namespace untrusted_test {

using nlohmann::json;
using testing::error_of;
using testing::expect_error;
using testing::has;

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

TEST(Shown, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(shown("a\nb\r\t\x1b[31m\x7f"), "a\\nb\\r\\t\\x1b[31m\\x7f");
  EXPECT_EQ(shown("caf\xc3\xa9 \xe2\x89\xa4 \xf0\x9f\x98\x80"),
            "caf\xc3\xa9 \xe2\x89\xa4 \xf0\x9f\x98\x80");
  EXPECT_EQ(shown("\xff\xc3"), "\\xff\\xc3");  // no UTF-8, and a character that is cut off
  EXPECT_EQ(shown("\xc2\x9b"), "\\xc2\\x9b");  // a control character of two bytes
  EXPECT_EQ(shown(std::string("\0x", 2)), "\\x00x");
}

TEST(Shown, CutsBehindWholeCharacters) {
  EXPECT_EQ(shown(std::string(200, 'a')), std::string(200, 'a'));
  EXPECT_EQ(shown(std::string(1000, 'a')), std::string(200, 'a') + "... (800 more bytes)");
  EXPECT_EQ(shown("\xc3\xa9\xc3\xa9\xc3\xa9", 2), "\xc3\xa9\xc3\xa9... (2 more bytes)");
  EXPECT_EQ(shown(json{{"a", "\x1b"}}), "{\"a\":\"\\u001b\"}");
}

TEST(ParseJson, ReadsWhatTheLibraryReads) {
  for (const char* text :
       {R"({"a": [1, -2, 2.5e300, true, false, null, "x\u00e9"], "b": {"c": {}, "d": []}})", "[]",
        "7", "\"t\"", "18446744073709551615", " {\"a\": 1, \"a\": 2} "}) {
    EXPECT_EQ(parse_json(text, "it"), json::parse(text)) << text;
  }
}

TEST(ParseJson, BoundsTheDepth) {
  const auto nested = [](int depth) { return repeated("[", depth) + repeated("]", depth); };
  EXPECT_EQ(parse_json(nested(kMaxDepth), "it"), json::parse(nested(kMaxDepth)));
  expect_error([&] { parse_json(nested(kMaxDepth + 1), "'x.json'"); }, {"'x.json'", "100 levels"});
  expect_error([&] { parse_json(repeated("[", 1'000'000), "it"); }, {"100 levels"});
  expect_error([&] { parse_json(repeated("{\"a\":", 1'000'000), "it"); }, {"100 levels"});
}

TEST(ParseJson, SaysWhereItStopsBeingJson) {
  EXPECT_EQ(error_of([] { parse_json("{\"a\": 1,\n \"b\": x}", "'f'"); }),
            "'f' is not JSON from line 2, column 7 on");
  EXPECT_EQ(error_of([] { parse_json("{\"a\": ", "'f'"); }),
            "'f' is not JSON: it ends too early, at byte 6");
  EXPECT_EQ(error_of([] { parse_json("", "'f'"); }),
            "'f' is not JSON: it ends too early, at byte 0");
  for (const char* text : {"{} {}", "[1,]", "\"\xff\"", "1e999", "nan", "{\"a\" 1}", "'a'"}) {
    EXPECT_TRUE(has(error_of([&] { parse_json(text, "'f'"); }), "'f' is not JSON")) << text;
    EXPECT_EQ(try_parse_json(text), std::nullopt) << text;
  }
  EXPECT_EQ(try_parse_json("[1]"), json::parse("[1]"));
}

TEST(ParseJson, ReportsAKeyThatStandsTwice) {
  const char* text = R"({"a": {"x": 1, "y": {"x": 2}}, "b": [{"x": 1}, {"x": 1}]})";
  EXPECT_EQ(parse_json(text, "it", JsonKeys::kOnce), json::parse(text));
  expect_error([] { parse_json(R"([{"a": {"x": 1, "x": 2}}])", "it", JsonKeys::kOnce); },
               {"'x' twice"});
}

// 200,000 entries took the library's parser with a callback minutes, as it went through all of them
// for each. The limit leaves a slow machine room.
TEST(ParseJson, TakesTimeLinearInTheEntries) {
  std::string text = "{";
  for (int i = 0; i < 200'000; ++i)
    text += "\"t" + std::to_string(i) + R"(":{"dtype":"U8","shape":[1]},)";
  text.back() = '}';
  const auto start = std::chrono::steady_clock::now();
  EXPECT_EQ(parse_json(text, "it", JsonKeys::kOnce).size(), 200'000u);
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  EXPECT_LT(seconds.count(), 20);
}

}  // namespace untrusted_test
}  // namespace refract
