#include "data/files/compressed.h"

#include <gtest/gtest.h>
#include <zlib.h>

#include <cstring>
#include <string>

#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace compressed_test {

std::string gzip(const std::string& text) {
  z_stream stream{};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(text.size() + 1000, '\0');
  std::string in = text;
  stream.next_in = reinterpret_cast<Bytef*>(in.data());
  stream.avail_in = static_cast<uInt>(in.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

// "hello\n" as `zstd` writes it without a checksum: one raw block in a frame.
std::string zstd_hello() { return {"\x28\xb5\x2f\xfd\x20\x06\x31\x00\x00hello\n", 15}; }

class CompressedTest : public ::testing::Test {
 protected:
  std::string read(const std::string& name, const std::string& bytes) {
    testing::write_text(folder_ / name, bytes);
    const auto file = open_compressed(folder_ / name);
    std::string out;
    while (file->read(out)) {
    }
    EXPECT_EQ(file->bytes_read() <= static_cast<int64_t>(bytes.size()), true);
    return out;
  }
  testing::TemporaryFolder folder_;
  const std::string small_member_ = gzip("a");
};

TEST_F(CompressedTest, GzipOfSeveralMembers) {
  std::string text;
  for (int i = 0; i < 400'000; ++i) text += std::to_string(i) + " ";
  EXPECT_EQ(read("a.gz", gzip(text)), text);
  EXPECT_EQ(read("a.GZ", gzip("one ") + gzip("") + gzip("two") + std::string(7, '\0')), "one two");
}

TEST_F(CompressedTest, ZstdOfSeveralFrames) {
  EXPECT_EQ(read("a.zst", zstd_hello()), "hello\n");
  EXPECT_EQ(read("a.Zst", zstd_hello() + zstd_hello()), "hello\nhello\n");
}

TEST_F(CompressedTest, MembersOfAFewBytes) {
  std::string gz, zst;
  for (int i = 0; i < 50'000; ++i) {
    gz += small_member_;
    zst += zstd_hello();
  }
  EXPECT_EQ(read("a.gz", gz), std::string(50'000, 'a'));
  EXPECT_EQ(read("a.zst", zst).size(), 50'000u * 6);
}

TEST_F(CompressedTest, WhatUnpacksWithoutBoundIsRefused) {
  // Blocks that repeat one byte 131,072 times, in a window of as many.
  std::string bomb("\x28\xb5\x2f\xfd\x00\x38", 6);
  for (int i = 0; i < 2000; ++i) bomb += std::string("\x02\x00\x10", 3) + "a";
  bomb += std::string("\x01\x00\x00", 3);
  EXPECT_EQ(testing::error_of([&] { read("bomb.zst", bomb); }),
            "'" + (folder_ / "bomb.zst").string() +
                "' unpacks to more than 250 times its size within one document or line, which text "
                "never does; unpack it yourself if it is right");
}

TEST_F(CompressedTest, WhatIsCutOffOrDamagedIsNamed) {
  std::string random;
  for (uint32_t i = 0, x = 1; i < 100'000; ++i)
    random += static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  const std::string whole = gzip(random);
  testing::expect_error([&] { read("a.gz", whole.substr(0, 50'000)); }, {"a.gz", "cut off"});
  testing::expect_error([&] { read("b.gz", whole.substr(0, whole.size() - 4)); },
                        {"b.gz", "cut off"});
  std::string wrong = whole;
  wrong[wrong.size() - 6] ^= 1;  // the checksum
  testing::expect_error([&] { read("c.gz", wrong); }, {"c.gz", "damaged"});
  testing::expect_error([&] { read("d.gz", "plain text"); }, {"d.gz", "not gzip data"});
  testing::expect_error([&] { read("e.gz", ""); }, {"e.gz", "cut off"});
  testing::expect_error([&] { read("f.gz", gzip("x") + "more"); }, {"f.gz", "damaged"});
  testing::expect_error([&] { read("g.zst", zstd_hello().substr(0, 12)); }, {"g.zst", "cut off"});
  testing::expect_error([&] { read("h.zst", "PK\x03\x04 archive"); },
                        {"h.zst", "not zstd data", "zip"});
}

TEST(Compressed, IsToldByTheName) {
  EXPECT_TRUE(is_compressed("a.txt.gz") && is_compressed("b.GZ") && is_compressed("c/d.jsonl.Zst"));
  EXPECT_FALSE(is_compressed("a.gz.txt") || is_compressed("gz") || is_compressed("a.zstd"));
}

}  // namespace compressed_test
}  // namespace refract
