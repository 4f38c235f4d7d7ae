#include "core/foreign_bytes.h"

#include <gtest/gtest.h>

#include <string>

#include "core/files.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace foreign_bytes_test {

using namespace std::string_literals;

constexpr const char* kPointer =
    "version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n";

TEST(ForeignBytes, AreToldByTheirBeginning) {
  EXPECT_TRUE(testing::has(foreign_bytes(kPointer), "git lfs pull"));
  EXPECT_TRUE(testing::has(foreign_bytes("\xef\xbb\xbf \n<!DocType HTML>"), "HTML page"));
  EXPECT_TRUE(testing::has(foreign_bytes("<HTML lang=\"en\">"), "HTML page"));
  EXPECT_TRUE(testing::has(foreign_bytes("\x1f\x8b\x08\x00 more"s), "gzip"));
  EXPECT_TRUE(testing::has(foreign_bytes("PK\x03\x04 more"), "zip archive"));
  EXPECT_TRUE(testing::has(foreign_bytes("Entry not found"), "failed download"));
}

// Headerless token shards begin with any 16-bit numbers, and texts with any words.
TEST(ForeignBytes, WhatMerelyResemblesThemIsNot) {
  for (const std::string& bytes : {"\x1f\x8b"s, "\x1f\x8b\x08\xe0"s, "PK\x05\x06"s, "BZh91"s, "PK"s,
                                   "\xff\xfe"s, ""s, "Entry not found in the book"s, "<p>"s})
    EXPECT_EQ(foreign_bytes(bytes), "") << bytes;
}

TEST(ForeignBytes, AWholeFileIsNotReadForWhatStandsInForIt) {
  const testing::TemporaryFolder folder;
  testing::write_text(folder / "config.json", kPointer);
  testing::expect_error([&] { read_file(folder / "config.json", "the settings"); },
                        {"the settings", "config.json", "Git LFS pointer"});
  testing::write_text(folder / "config.json", "{\"a\": \"<html>\"}");
  EXPECT_EQ(read_file(folder / "config.json"), "{\"a\": \"<html>\"}");
}

}  // namespace foreign_bytes_test
}  // namespace refract
