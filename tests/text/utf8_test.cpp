#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>

namespace refract {
namespace utf8_test {

using namespace std::string_literals;

TEST(Utf8, AcceptsWellFormedText) {
  for (const std::string& text :
       {""s, "abc"s, "\0x"s, "é"s, "€"s, "😀"s, "\xED\x9F\xBF"s, "\xEE\x80\x80"s,
        "\xF4\x8F\xBF\xBF"s, "long enough for a word é then more"s}) {
    EXPECT_TRUE(is_valid_utf8(text)) << text;
    EXPECT_EQ(repair_utf8(text), text);
  }
}

// Expected results are Python's bytes.decode("utf-8", errors="replace").
TEST(Utf8, ReplacesMaximalIllFormedParts) {
  const std::string r = "\uFFFD";
  EXPECT_EQ(repair_utf8("\x80"), r);
  EXPECT_EQ(repair_utf8("\xC0\xAF"), r + r);                  // overlong
  EXPECT_EQ(repair_utf8("\xE0\x9F\x80"), r + r + r);          // overlong
  EXPECT_EQ(repair_utf8("\xED\xA0\x80"), r + r + r);          // a surrogate
  EXPECT_EQ(repair_utf8("\xF4\x90\x80\x80"), r + r + r + r);  // above U+10FFFF
  EXPECT_EQ(repair_utf8("\xF5"), r);
  EXPECT_EQ(repair_utf8("\xE2\x82"), r);  // cut off: one part
  EXPECT_EQ(repair_utf8("\xE2\x82z"), r + "z");
  EXPECT_EQ(repair_utf8("\xF0\x9F\x98z"), r + "z");
  EXPECT_EQ(repair_utf8("\xF0\x9F\xE2\x82\xAC"), r + "€");
  EXPECT_EQ(repair_utf8("a\xF1\x80\x80\xE1\x80\xC2z\x80"), "a" + r + r + r + "z" + r);
}

TEST(Utf8, CodePointsRoundTrip) {
  for (char32_t c = 0; c <= 0x10FFFF; c += c < 0x3000 ? 1 : 0x101) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text = "a";
    append_utf8(text, c);
    ASSERT_TRUE(is_valid_utf8(text));
    size_t position = 1;
    ASSERT_EQ(next_code_point(text, position), c);
    ASSERT_EQ(position, text.size());
    ASSERT_EQ(previous_code_point(text, text.size()), c);
    ASSERT_EQ(utf8_length(static_cast<unsigned char>(text[1])), text.size() - 1);
  }
}

TEST(Utf8, LeavesOutACharacterThatIsCutOff) {
  const std::string text = "aé😀";  // 1 + 2 + 4 bytes
  const std::vector<size_t> whole = {0, 1, 1, 3, 3, 3, 3, 7};
  for (size_t length = 0; length <= text.size(); ++length)
    EXPECT_EQ(complete_utf8(std::string_view(text).substr(0, length)), whole[length]) << length;
}

TEST(Utf8, NormalizesToNfc) {
  std::string storage;
  EXPECT_EQ(normalize_nfc("plain", storage), "plain");
  EXPECT_EQ(normalize_nfc("e\u0301", storage), "é");
  EXPECT_EQ(normalize_nfc("a\u0323\u0307", storage), "\u1EA1\u0307");
  EXPECT_EQ(normalize_nfc("\u1112\u1161\u11AB", storage), "한");
  EXPECT_EQ(normalize_nfc("\u0958", storage), "\u0915\u093C");  // a composition exclusion
  EXPECT_EQ(normalize_nfc("\u212B", storage), "\u00C5");
  EXPECT_EQ(normalize_nfc("\uFB01", storage), "\uFB01");  // compatibility forms stay
}

}  // namespace utf8_test
}  // namespace refract
