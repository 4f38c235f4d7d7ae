#include "data/files/lines.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/temporary_folder.h"

namespace refract {
namespace lines_test {

std::vector<std::string> all_lines(const std::string& content) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "a.jsonl", content);
  const auto lines = open_lines(folder / "a.jsonl");
  std::vector<std::string> all;
  while (const auto line = lines->next()) all.emplace_back(*line);
  EXPECT_EQ(lines->bytes_read(), static_cast<int64_t>(content.size()));
  return all;
}

// A frame of zstd with the content as it is: any zstd reads it.
std::string stored(const std::string& text) {
  std::string out("\x28\xb5\x2f\xfd\xa0", 5);
  const auto little = [&](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i) & 0xff);
  };
  little(static_cast<uint32_t>(text.size()), 4);
  constexpr size_t kBlock = 100'000;
  for (size_t at = 0; at < text.size(); at += kBlock) {
    const std::string block = text.substr(at, kBlock);
    little(static_cast<uint32_t>(block.size() << 3 | (at + kBlock >= text.size() ? 1 : 0)), 3);
    out += block;
  }
  return out;
}

TEST(Lines, OfAPlainFile) {
  using Strings = std::vector<std::string>;
  EXPECT_EQ(all_lines("a\n\nb\r\n"), (Strings{"a", "", "b\r"}));
  EXPECT_EQ(all_lines("a\nb"), (Strings{"a", "b"}));
  EXPECT_EQ(all_lines(""), Strings{});
}

TEST(Lines, OfACompressedFileAreTheSame) {
  const testing::TemporaryFolder folder;
  std::string text;
  for (int i = 0; i < 30'000; ++i) text += std::string(static_cast<size_t>(i % 150), 'x') + "\n";
  text += "last";
  testing::write_text(folder / "a.txt", text);
  testing::write_text(folder / "b.txt.zst", stored(text));
  const auto plain = open_lines(folder / "a.txt"), packed = open_lines(folder / "b.txt.zst");
  int64_t count = 0;
  while (const auto line = plain->next()) {
    ASSERT_EQ(packed->next(), line) << count;
    ++count;
  }
  EXPECT_EQ(count, 30'001);
  EXPECT_FALSE(packed->next());
}

}  // namespace lines_test
}  // namespace refract
