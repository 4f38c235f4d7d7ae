// Writing shards.
#include "data/shards.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>
#include <vector>

#include "core/files.h"
#include "data/tokens.h"
#include "support/corpus.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace shards_test {

using testing::all_tokens;
using testing::expect_error;
using testing::TemporaryFolder;

TEST(ShardWriter, RoundTripsInShardsOfTheAskedSize) {
  for (const int bytes : {2, 4}) {
    const TemporaryFolder folder;
    std::filesystem::create_directories(folder.str("out"));
    ShardWriter writer(folder / "out", "x_train", bytes, 10);
    std::vector<int32_t> all;
    for (int32_t i = 0; i < 34; ++i) all.push_back(bytes == 2 ? 65535 - i : 0x7fffffff - i);
    writer.append(std::span(all).first(3));
    writer.append({});
    writer.append(std::span(all).subspan(3, 29));
    writer.append(std::span(all).subspan(32));
    const auto files = writer.finish();
    ASSERT_EQ(files.size(), 4u);
    EXPECT_EQ(files[3].filename(), "x_train_000003.bin");
    EXPECT_EQ(std::filesystem::file_size(files[0]), 1024u + 10u * static_cast<unsigned>(bytes));
    EXPECT_EQ(std::filesystem::file_size(files[3]), 1024u + 4u * static_cast<unsigned>(bytes));
    EXPECT_EQ(writer.tokens(), 34);
    EXPECT_EQ(all_tokens(*open_shards(files)), all);
  }
}

TEST(ShardWriter, ExactMultipleLeavesNoEmptyShard) {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path(), "x", 2, 5);
  const std::vector<int32_t> tokens(10, 3);
  writer.append(tokens);
  EXPECT_EQ(writer.finish().size(), 2u);
}

TEST(ShardWriter, NothingWrittenIsNoFile) {
  const TemporaryFolder folder;
  ShardWriter writer(folder.path(), "x", 2);
  EXPECT_TRUE(writer.finish().empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ShardWriter, UnfinishedShardsLeaveNothing) {
  const TemporaryFolder folder;
  {
    ShardWriter writer(folder.path(), "x", 2);
    writer.append(std::vector<int32_t>{1, 2, 3});
    EXPECT_FALSE(std::filesystem::exists(folder / "x_000000.bin"));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(ShardWriter, RefusesIdsThatDoNotFit) {
  const TemporaryFolder folder;
  ShardWriter narrow(folder.path(), "n", 2), wide(folder.path(), "w", 4);
  expect_error([&] { narrow.append(std::vector<int32_t>{1, 65536}); }, {"65536", "16-bit"});
  expect_error([&] { wide.append(std::vector<int32_t>{-5}); }, {"-5"});
  expect_error([&] { ShardWriter(folder.path(), "z", 2, 0); }, {"tokens per shard"});
}

TEST(ShardWriter, WidthFollowsTheVocabulary) {
  EXPECT_EQ(token_bytes_for(65), 2);
  EXPECT_EQ(token_bytes_for(65536), 2);
  EXPECT_EQ(token_bytes_for(65537), 4);
}

TEST(ShardWriter, SaysWhereItCannotWrite) {
  const TemporaryFolder folder;
  ShardWriter writer(folder / "missing", "x", 2);
  expect_error([&] { writer.append(std::vector<int32_t>{1}); }, {"missing", "No such file"});
}

// The bytes of ids 1000, 1001, ... in numbers of that width, without a header.
template <class Number>
std::vector<std::byte> raw(size_t count, uint32_t first) {
  std::vector<Number> numbers;
  for (size_t i = 0; i < count; ++i) numbers.push_back(static_cast<Number>(first + i));
  std::vector<std::byte> bytes(count * sizeof(Number));
  std::memcpy(bytes.data(), numbers.data(), bytes.size());
  return bytes;
}

std::string layout_error(const std::vector<std::byte>& bytes) {
  return testing::error_of([&] { read_shard_layout(bytes, bytes.size(), "x.bin"); });
}

TEST(Shards, WiderNumbersWithoutAHeaderAreRefused) {
  for (const uint32_t first : {0U, 1000U, 65500U, 128000U}) {
    EXPECT_NE(layout_error(raw<uint32_t>(400, first)).find("32-bit numbers"), std::string::npos);
    EXPECT_NE(layout_error(raw<int64_t>(400, first)).find("64-bit numbers"), std::string::npos);
  }
}

TEST(Shards, SixteenBitTokensWithoutAHeaderAreTaken) {
  for (const uint32_t first : {0U, 1000U, 65000U})
    EXPECT_EQ(layout_error(raw<uint16_t>(400, first)), "");
  EXPECT_EQ(layout_error(raw<uint32_t>(20, 1000)), "") << "too few to tell";
  std::vector<std::byte> few(800);  // a vocabulary of two
  for (size_t i = 0; i < few.size(); i += 6) few[i] = std::byte{1};
  EXPECT_EQ(layout_error(few), "");
}

}  // namespace shards_test
}  // namespace refract
