// Writing shards.
#include "data/shards.h"

#include <gtest/gtest.h>

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

}  // namespace shards_test
}  // namespace refract
