// Several corpora with weights.
#include "data/mix/mixture.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "core/error.h"
#include "data/dataset.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace mixture_test {

using testing::expect_error;
using testing::TemporaryFolder;
using testing::usage_error_of;
using testing::write_text;

std::shared_ptr<TokenStream> counting(int32_t first, int32_t count) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  std::iota(tokens.begin(), tokens.end(), first);
  return make_token_stream(tokens);
}

constexpr int64_t kContext = 8;

// Of 1,000, 5,000 and 300 tokens.
std::shared_ptr<TokenStream> three() {
  return join_streams(
      {{counting(0, 1000), 1}, {counting(1000, 5000), 2}, {counting(6000, 300), 5}});
}

TEST(Mixture, StreamsAreReadOneBehindTheOther) {
  const auto joined = three();
  ASSERT_EQ(joined->size(), 6300);
  std::vector<int32_t> all(6300);
  joined->read(0, all);
  for (int32_t i = 0; i < 6300; ++i) ASSERT_EQ(all[static_cast<size_t>(i)], i);
  std::vector<int32_t> across(5300);
  joined->read(990, across);
  EXPECT_EQ(across.front(), 990);
  EXPECT_EQ(across.back(), 6289);
  EXPECT_EQ(joined->max_token(), 6299);
  EXPECT_EQ(joined->shares().size(), 3u);
  EXPECT_THROW(joined->read(6299, std::span(across).first(2)), Error);
}

TEST(Mixture, SharesAreRoundedToTheirSum) {
  EXPECT_EQ(mix_slots({1, 2, 5}), (std::vector<int64_t>{512, 1024, 2560}));
  EXPECT_EQ(mix_slots({1, 1, 1}), (std::vector<int64_t>{1366, 1365, 1365}));
  EXPECT_EQ(mix_slots({7}), std::vector<int64_t>{kMixSlots});
  EXPECT_EQ(mix_slots({1, 1e6}), (std::vector<int64_t>{0, kMixSlots}));
  EXPECT_EQ(mix_slots({1e308, 1e308}),
            (std::vector<int64_t>{2048, 2048}));  // their sum is infinite
  EXPECT_EQ(mix_slots({3e-320, 1e-320}), (std::vector<int64_t>{3072, 1024}));
  for (const double bad : {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(),
                           std::numeric_limits<double>::infinity()})
    EXPECT_THROW(mix_slots({1, bad}), Error);
}

// Every window lies in one part, and of 4,096 in a row each part has its share exactly.
TEST(Mixture, PartsHaveTheirSharesAndKeepTheirBorders) {
  for (const Sampling sampling : {Sampling::kPermutation, Sampling::kRandom}) {
    const WindowMix mix(*three(), kContext, 3, sampling);
    for (const int64_t from : {int64_t{0}, 5 * kMixSlots}) {
      std::map<int, int64_t> windows;
      for (int64_t g = from; g < from + kMixSlots; ++g) {
        const int64_t start = mix.start(g), end = start + kContext;
        const int part = start < 1000 ? 0 : start < 6000 ? 1 : 2;
        EXPECT_EQ(part, end < 1000 ? 0 : end < 6000 ? 1 : 2) << g;
        ASSERT_LT(end, 6300);
        ++windows[part];
      }
      EXPECT_EQ(windows[0], 512);
      EXPECT_EQ(windows[1], 1024);
      EXPECT_EQ(windows[2], 2560);
    }
  }
}

// 4,096 windows in a row are 512 of the first part, 1,024 of the second and 2,560 of the third,
// whose epochs have 123, 623 and 36.
TEST(Mixture, PartsAreGoneThroughWithoutReplacement) {
  const WindowMix mix(*three(), kContext, 3);
  std::map<int64_t, int64_t> times;
  for (int64_t g = 0; g < kMixSlots; ++g) ++times[mix.start(g)];
  int64_t distinct[3] = {};
  for (const auto& [start, count] : times) {
    const int part = start < 1000 ? 0 : start < 6000 ? 1 : 2;
    EXPECT_LE(count, part == 0 ? 5 : part == 1 ? 2 : 72) << start;
    ++distinct[part];
  }
  EXPECT_GE(distinct[0], 123);
  EXPECT_GE(distinct[1], 623);
  EXPECT_GE(distinct[2], 36);
}

TEST(Mixture, OnePartIsThePlainOrder) {
  const auto stream = counting(0, 2000);
  const WindowMix mix(*stream, kContext, 11);
  const WindowOrder plain(2000, kContext, 11);
  for (int64_t g = 0; g < 1000; ++g) ASSERT_EQ(mix.start(g), plain.start(g));
}

TEST(Mixture, SeedsGiveOtherOrders) {
  const WindowMix a(*three(), kContext, 3), b(*three(), kContext, 4), again(*three(), kContext, 3);
  int64_t same = 0;
  for (int64_t g = 0; g < 1000; ++g) {
    ASSERT_EQ(a.start(g), again.start(g));
    same += a.start(g) == b.start(g);
  }
  EXPECT_LT(same, 50);
}

class MixedDatasetTest : public ::testing::Test {
 protected:
  void SetUp() override {
    for (const char* name : {"a", "b"}) {
      std::string lines;
      for (int i = 0; i < 40; ++i)
        lines += fmt::format("{{\"text\":\"{} {:02} {}\"}}\n", name, i, std::string(20, *name));
      write_text(folder_ / (std::string(name) + ".jsonl"), lines);
    }
    config_.path = {folder_.str("a.jsonl"), folder_.str("b.jsonl")};
    config_.weights = {3, 1};
    config_.context = 16;
    config_.cache = folder_.str("cache");
  }

  static std::string text(const Dataset& data, const TokenStream& stream) {
    std::vector<int32_t> tokens(static_cast<size_t>(stream.size()));
    stream.read(0, tokens);
    return data.tokenizer->decode(tokens);
  }

  int folders() const {
    int count = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_ / "cache"))
      count += entry.is_directory();
    return count;
  }

  TemporaryFolder folder_;
  DataConfig config_;
};

TEST_F(MixedDatasetTest, EachCorpusIsSplitAndKeptOnItsOwn) {
  const Dataset mixed = open_dataset(config_);
  ASSERT_EQ(mixed.train->shares().size(), 2u);
  EXPECT_EQ(mixed.train->shares()[0].weight, 3);
  DataConfig alone = config_;
  alone.weights.clear();
  std::string train, validation;
  for (const std::string& path : config_.path) {
    alone.path = {path};
    const Dataset one = open_dataset(alone, mixed.tokenizer);
    train += text(mixed, *one.train);
    validation += text(mixed, *one.validation);
  }
  EXPECT_EQ(text(mixed, *mixed.train), train);
  EXPECT_EQ(text(mixed, *mixed.validation), validation);
  EXPECT_NE(validation.find('a'), std::string::npos);
  EXPECT_NE(validation.find('b'), std::string::npos);
  const int before = folders();
  config_.weights = {1, 1};
  EXPECT_EQ(text(mixed, *open_dataset(config_).train), train);
  EXPECT_EQ(folders(), before);
}

TEST_F(MixedDatasetTest, ValidationMayBeACorpusOfItsOwn) {
  write_text(folder_ / "v.txt", "ab 0123456789");
  config_.validation = {folder_.str("v.txt")};
  const Dataset mixed = open_dataset(config_);
  EXPECT_EQ(text(mixed, *mixed.validation), "ab 0123456789");
  EXPECT_NE(text(mixed, *mixed.train).find("b 39"), std::string::npos);
}

TEST_F(MixedDatasetTest, WeightsThatDoNotFitAreRefused) {
  config_.weights = {1};
  EXPECT_NE(usage_error_of([&] { open_dataset(config_); }).find("1 numbers for 2"),
            std::string::npos);
  config_.weights = {1, 0};
  EXPECT_NE(usage_error_of([&] { open_dataset(config_); }).find("above 0"), std::string::npos);
  config_.weights = {1, 1e6};
  EXPECT_NE(usage_error_of([&] { open_dataset(config_); }).find("below 1 in 4096"),
            std::string::npos);
  config_.weights = {1, 1};
}

// An evaluation reads the validation part alone, at any context.
TEST_F(MixedDatasetTest, ACorpusShorterThanAWindowIsRefusedWhereWindowsAreDrawn) {
  config_.context = 1000000;
  const Dataset mixed = open_dataset(config_);
  EXPECT_GT(mixed.validation->size(), 0);
  expect_error([&] { WindowMix(*mixed.train, config_.context, 1); },
               {"corpus 1 of data.path", "data.context + 1"});
}

TEST_F(MixedDatasetTest, ADocumentIsInOneCorpusOnly) {
  std::filesystem::create_symlink(folder_ / "a.jsonl", folder_ / "link.jsonl");
  const std::string a = folder_.str("a.jsonl");
  for (const std::string& other : {folder_.str(""), folder_.str("./a.jsonl"),
                                   folder_.str("*.jsonl"), folder_.str("link.jsonl")}) {
    config_.path = {a, other};
    EXPECT_NE(usage_error_of([&] { open_dataset(config_); }).find("is in two corpora"),
              std::string::npos)
        << other;
  }
  config_.path = {"stories:20KB", "stories:10KB"};  // which begin alike
  EXPECT_NE(usage_error_of([&] { open_dataset(config_); }).find("is in two corpora"),
            std::string::npos);
  config_.path = {a, a};
  config_.validation = {folder_.str("b.jsonl")};
  EXPECT_EQ(open_dataset(config_).train->shares().size(), 2u);
}

}  // namespace mixture_test
}  // namespace refract
