// Token streams over shards: what they hold, what they refuse, and that memory stays flat.
#include "data/tokens.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <numeric>
#include <thread>

#include "core/error.h"
#include "core/random.h"
#include "support/corpus.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "support/token_files.h"

namespace refract {
namespace tokens_test {

using testing::all_tokens;
using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_llmc;
using testing::write_text;
using testing::write_values;

TEST(TokenStream, ReadsNanoGptFilesAsTheyAre) {
  const TemporaryFolder folder;
  write_values<uint16_t>(folder / "train.bin", {5, 65535, 0, 7});
  const auto stream = open_shards({folder / "train.bin"});
  EXPECT_EQ(all_tokens(*stream), (std::vector<int32_t>{5, 65535, 0, 7}));
  EXPECT_EQ(stream->max_token(), 65535);
}

TEST(TokenStream, ReadsBothWidthsOfLlmC) {
  const TemporaryFolder folder;
  write_llmc<uint16_t>(folder / "a.bin", 20240520, 1, {1, 2, 50256});
  write_llmc<uint32_t>(folder / "b.bin", 20240801, 7, {3, 128000, 4});
  const auto stream = open_shards({folder / "a.bin", folder / "b.bin"});
  EXPECT_EQ(all_tokens(*stream), (std::vector<int32_t>{1, 2, 50256, 3, 128000, 4}));
  EXPECT_EQ(stream->max_token(), 128000);
}

TEST(TokenStream, ReadsAcrossShardsAtEveryPlace) {
  const TemporaryFolder folder;
  std::vector<int32_t> all(40);
  std::iota(all.begin(), all.end(), 100);
  std::vector<std::filesystem::path> paths;
  for (size_t i = 0, begin = 0; i < 4; begin += 4 * (i + 1), ++i) {  // 4, 8, 12, 16 tokens
    paths.push_back(folder / ("s" + std::to_string(i) + ".bin"));
    std::vector<uint16_t> part(all.begin() + static_cast<long>(begin),
                               all.begin() + static_cast<long>(begin + 4 * (i + 1)));
    write_values<uint16_t>(paths.back(), part);
  }
  const auto stream = open_shards(paths);
  ASSERT_EQ(stream->size(), 40);
  for (int64_t begin = 0; begin <= 40; ++begin) {
    for (int64_t end = begin; end <= 40; ++end) {
      std::vector<int32_t> out(static_cast<size_t>(end - begin));
      stream->read(begin, out);
      EXPECT_EQ(out, std::vector<int32_t>(all.begin() + begin, all.begin() + end));
    }
  }
  std::vector<int32_t> out(2);
  EXPECT_THROW(stream->read(39, out), Error);
  EXPECT_THROW(stream->read(-1, out), Error);
  EXPECT_THROW(stream->read(41, {}), Error);
}

TEST(TokenStream, RefusesDamagedFilesByName) {
  const TemporaryFolder folder;
  const auto expect_refused = [&](const char* name, const char* why) {
    expect_error([&] { open_shards({folder / name}); }, {name, why});
  };
  write_values<uint16_t>(folder / "empty.bin", {});
  expect_refused("empty.bin", "empty");
  write_text(folder / "odd.bin", "abc");
  expect_refused("odd.bin", "3 bytes");
  write_llmc<uint16_t>(folder / "short.bin", 20240520, 1, {1, 2, 3}, 4);
  expect_refused("short.bin", "4 tokens");
  write_llmc<uint16_t>(folder / "long.bin", 20240520, 1, {1, 2, 3}, 2);
  expect_refused("long.bin", "2 tokens");
  write_llmc<uint16_t>(folder / "negative.bin", 20240520, 1, {1, 2, 3}, -3);
  expect_refused("negative.bin", "-3 tokens");
  write_llmc<uint16_t>(folder / "version.bin", 20240520, 2, {1, 2, 3});
  expect_refused("version.bin", "version 2");
  write_llmc<uint16_t>(folder / "width.bin", 20240801, 7, {1, 2, 3});
  expect_refused("width.bin", "damaged");
  write_values<int32_t>(folder / "header.bin", {20240520, 1, 8});
  expect_refused("header.bin", "cut off");
  expect_refused("missing.bin", "No such file");
  write_llmc<uint32_t>(folder / "big.bin", 20240801, 7, {1, 0x80000000u});
  const auto stream = open_shards({folder / "big.bin"});
  expect_error([&] { stream->max_token(); }, {"big.bin", "2147483648"});
}

TEST(TokenStream, MaximumIsFoundAtEveryPlace) {
  const TemporaryFolder folder;
  for (size_t place : {0u, 1u, 63u, 64u, 127u, 199u}) {
    std::vector<uint16_t> tokens(200, 9);
    tokens[place] = 40000;
    write_values<uint16_t>(folder / "m.bin", tokens);
    EXPECT_EQ(open_shards({folder / "m.bin"})->max_token(), 40000) << place;
  }
}

TEST(TokenStream, ChecksTheVocabulary) {
  const auto stream = make_token_stream({1, 2, 64});
  check_tokens(*stream, 65, "train.bin");
  expect_error([&] { check_tokens(*stream, 64, "train.bin"); }, {"train.bin", "64"});
  check_tokens(*make_token_stream({}), 1, "nothing");
  EXPECT_THROW(make_token_stream({-1}), Error);
}

TEST(TokenStream, SlicesAreStreams) {
  const auto whole = make_token_stream({10, 11, 12, 13, 14});
  const auto slice = slice_stream(whole, 1, 4);
  EXPECT_EQ(all_tokens(*slice), (std::vector<int32_t>{11, 12, 13}));
  std::vector<int32_t> out(1);
  EXPECT_THROW(slice->read(3, out), Error);
  EXPECT_THROW(slice_stream(whole, 3, 6), Error);
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t total = 0, resident = 0;
  file >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

// A file of 400 MB without blocks of its own: nanoGPT's memory grew with what was read (nanoGPT
// 287).
TEST(TokenStream, ResidentMemoryStaysFlat) {
  const TemporaryFolder folder;
  write_values<uint16_t>(folder / "large.bin", {1});
  std::filesystem::resize_file(folder / "large.bin", 400'000'000);
  const auto stream = open_shards({folder / "large.bin"});
  std::vector<int32_t> window(65536);
  const int64_t before = resident_bytes();
  int64_t most = before;
  for (int64_t i = 0; i + 65536 <= stream->size(); i += 65536) {
    stream->read(i, window);
    most = std::max(most, resident_bytes());
  }
  EXPECT_LT(most - before, 100'000'000) << "in order";
  RandomStream random(1, "places");
  for (int i = 0; i < 20000; ++i) {
    const auto place = random.below(static_cast<uint64_t>(stream->size() - 1025));
    stream->read(static_cast<int64_t>(place), std::span(window).first(1025));
    if (i % 16 == 0) most = std::max(most, resident_bytes());
  }
  EXPECT_LT(most - before, 100'000'000) << "at random places";
  EXPECT_EQ(stream->max_token(), 1);
  EXPECT_LT(resident_bytes() - before, 100'000'000) << "after a scan";
}

TEST(TokenStream, ThreadsReadTheSame) {
  const TemporaryFolder folder;
  std::vector<uint16_t> tokens(2'000'000);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<uint16_t>(i * 40503u >> 4);
  write_values<uint16_t>(folder / "t.bin", tokens);
  const auto stream = open_shards({folder / "t.bin"});
  std::atomic<int64_t> wrong{0};
  const auto work = [&](uint64_t seed) {
    RandomStream random(seed, "threads");
    std::vector<int32_t> window(1000);
    for (int i = 0; i < 5000; ++i) {  // hands pages back many times
      const auto place = random.below(tokens.size() - window.size());
      stream->read(static_cast<int64_t>(place), window);
      for (size_t j = 0; j < window.size(); j += 37) wrong += window[j] != tokens[place + j];
    }
  };
  std::vector<std::thread> threads;
  for (uint64_t seed = 0; seed < 4; ++seed) threads.emplace_back(work, seed);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0);
}

}  // namespace tokens_test
}  // namespace refract
