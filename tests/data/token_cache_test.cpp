#include "data/token_cache.h"

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "core/system/new_folder.h"
#include "data/dataset.h"
#include "support/corpus.h"
#include "support/errors.h"

namespace refract {
namespace token_cache_test {

using testing::all_tokens;
using testing::expect_error;
using testing::write_text;

using TokenCacheTest = testing::CorpusTest;

TEST_F(TokenCacheTest, TheCacheIsUsedAgainAndFollowsItsInputs) {
  const std::string path = add("a.txt", "some text for the cache");
  config_.path = {path};
  config_.tokenizer = "bytes";
  const auto tokens = all_tokens(*open_dataset(config_).train);
  EXPECT_EQ(cached(), 1u);
  const auto stamp = [&] {
    return std::filesystem::last_write_time(open_cached_corpus(config_, nullptr).corpus.train[0]);
  };
  const auto first = stamp();
  EXPECT_EQ(all_tokens(*open_dataset(config_).train), tokens);
  EXPECT_EQ(stamp(), first);
  EXPECT_EQ(cached(), 1u);
  config_.context = 5;  // of no weight for the tokens
  open_dataset(config_);
  EXPECT_EQ(cached(), 1u);
  config_.tokenizer = "chars";
  open_dataset(config_);
  EXPECT_EQ(cached(), 2u);
  config_.split = "characters";
  open_dataset(config_);
  EXPECT_EQ(cached(), 3u);
  add("a.txt", "another text for the cache");
  EXPECT_NE(all_tokens(*open_dataset(config_).train), tokens);
  EXPECT_EQ(cached(), 4u);
}

// As ranks that start together do.
TEST_F(TokenCacheTest, OneMakesTheCacheAndOthersWait) {
  config_.path = {"stories:300KB"};
  std::vector<std::vector<int32_t>> read(4);
  std::vector<std::thread> threads;
  for (auto& tokens : read) {
    threads.emplace_back([&] { tokens = all_tokens(*open_dataset(config_).train); });
  }
  for (auto& thread : threads) thread.join();
  for (const auto& tokens : read) EXPECT_EQ(tokens, read[0]);
  EXPECT_GT(read[0].size(), 200000u);
  EXPECT_EQ(cached(), 1u);
}

TEST_F(TokenCacheTest, ADamagedCacheIsMadeAgain) {
  config_.path = {add("a.txt", "some text for the cache")};
  const auto tokens = all_tokens(*open_dataset(config_).train);
  const CachedCorpus cache = open_cached_corpus(config_, nullptr);
  std::filesystem::resize_file(cache.corpus.train[0], 1030);
  EXPECT_EQ(all_tokens(*open_dataset(config_).train), tokens);
  std::filesystem::remove(cache.folder / "manifest.json");
  EXPECT_EQ(all_tokens(*open_dataset(config_).train), tokens);
  write_text(cache.folder.string() + ".partial/tokens_train_000000.bin", "left by a crash");
  std::filesystem::remove_all(cache.folder);
  EXPECT_EQ(all_tokens(*open_dataset(config_).train), tokens);
  EXPECT_EQ(cached(), 1u);
}

// A system without memory or file handles says nothing about the files.
TEST_F(TokenCacheTest, OnlyDamageLetsACorpusGo) {
  config_.path = {add("a.txt", "some text for the cache")};
  config_.tokenizer = "bytes";
  const CachedCorpus cache = open_cached_corpus(config_, nullptr);
  const FileIdentity made(cache.corpus.train[0]);
  rlimit old{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &old), 0);
  int failed = 0;
  // The fewest handles with which anything can be opened, and those above, until all succeeds.
  for (rlim_t handles = 3; handles < 40; ++handles) {
    const rlimit limit{handles, old.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &limit), 0);
    try {
      open_cached_corpus(config_, nullptr);
    } catch (const std::exception&) {
      ++failed;
    }
    ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &old), 0);
    ASSERT_EQ(FileIdentity(cache.corpus.train[0]), made) << handles;
  }
  EXPECT_GT(failed, 0);
  EXPECT_LT(failed, 37);
}

TEST_F(TokenCacheTest, AFailureLeavesNothingInTheCache) {
  config_.path = {add("a.jsonl", "{\"text\":\"x\"}\n{\"text\":\"y\"}\n{\"text\":\"z\"}\nbroken\n")};
  config_.tokenizer = "bytes";
  expect_error([&] { open_dataset(config_); }, {"a.jsonl:4:"});
  EXPECT_EQ(cached(), 0u);
}

}  // namespace token_cache_test
}  // namespace refract
