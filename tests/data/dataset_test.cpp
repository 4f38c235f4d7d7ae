// From settings to token streams: splits, the cache, shards, and what is refused.
#include "data/dataset.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>

#include "core/config.h"
#include "core/files.h"
#include "data/split.h"
#include "data/token_cache.h"
#include "data/tokenize.h"
#include "support/data_tools.h"

namespace refract {
namespace {

std::vector<int32_t> all_tokens(const TokenStream& stream) {
  std::vector<int32_t> tokens(static_cast<size_t>(stream.size()));
  stream.read(0, tokens);
  return tokens;
}

std::string text_of(const Dataset& data, const TokenStream& stream) {
  return data.tokenizer->decode(all_tokens(stream));
}

class DatasetTest : public ::testing::Test {
 protected:
  DatasetTest() { config_.cache = folder_.str("cache"); }
  std::string add(const std::string& name, const std::string& text) {
    write_text(folder_ / name, text);
    return folder_.str(name);
  }
  size_t cached() const {
    size_t folders = 0;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.str("cache"))) {
      EXPECT_EQ(entry.path().string().find(".partial"), std::string::npos);
      folders += entry.is_directory();
    }
    return folders;
  }
  TempFolder folder_;
  DataConfig config_;
};

TEST_F(DatasetTest, CharactersAreSplitAsNanoGptDoes) {
  std::string text;
  for (int i = 0; i < 1003; ++i)
    text += i % 7 == 0 ? "\xc3\xa9" : std::string(1, "abcdef\n"[i % 7]);
  config_.path = {add("a.txt", text)};
  config_.split = "characters";
  const Dataset data = open_dataset(config_);
  EXPECT_EQ(data.train->size(), 902);  // int(0.9 * 1003)
  EXPECT_EQ(data.validation->size(), 101);
  EXPECT_EQ(text_of(data, *data.train) + text_of(data, *data.validation), text);
  EXPECT_EQ(data.tokenizer->vocab_size(), 7);
  EXPECT_NE(data.description.find("1 document, 902 + 101 tokens"), std::string::npos)
      << data.description;
}

TEST_F(DatasetTest, DocumentsAreSplitWithoutLoss) {
  std::string lines;
  std::multiset<std::string> expected;
  for (int i = 0; i < 400; ++i) {
    expected.insert("document " + std::to_string(i));
    lines += nlohmann::json{{"text", "document " + std::to_string(i)}}.dump() + "\n";
  }
  config_.path = {add("a.jsonl", lines)};
  const Dataset data = open_dataset(config_);
  const auto parts = [](std::string text) {
    std::multiset<std::string> all;
    for (size_t end; (end = text.find("\n\n")) != std::string::npos; text.erase(0, end + 2)) {
      all.insert(text.substr(0, end));
    }
    all.insert(text);
    return all;
  };
  auto train = parts(text_of(data, *data.train)),
       validation = parts(text_of(data, *data.validation));
  EXPECT_NEAR(static_cast<double>(validation.size()), 40, 5 * 6);
  train.insert(validation.begin(), validation.end());
  EXPECT_EQ(train, expected);
  DataConfig other = config_;
  other.seed = 2;
  EXPECT_NE(all_tokens(*open_dataset(other).validation), all_tokens(*data.validation));
}

TEST_F(DatasetTest, EachSideGetsADocumentOfFew) {
  for (int documents = 2; documents <= 6; ++documents) {
    std::string lines;
    for (int i = 0; i < documents; ++i) lines += "{\"text\":\"abc\"}\n";
    config_.path = {add("f" + std::to_string(documents) + ".jsonl", lines)};
    for (config_.seed = 0; config_.seed < 8; ++config_.seed) {
      for (const double fraction : {0.001, 0.5, 0.95}) {
        config_.validation_fraction = fraction;
        const Dataset data = open_dataset(config_);
        EXPECT_GE(data.train->size(), 3);
        EXPECT_GE(data.validation->size(), 3);
        // Every document is there once: 3 characters each and 2 between two of a side.
        EXPECT_EQ(data.train->size() + data.validation->size(),
                  3 * documents + 2 * (documents - 2));
      }
    }
  }
}

TEST_F(DatasetTest, ASingleDocumentIsSplitByCharacters) {
  config_.path = {add("a.txt", std::string(100, 'x'))};
  const Dataset data = open_dataset(config_);
  EXPECT_EQ(data.train->size(), 90);
  EXPECT_EQ(data.validation->size(), 10);
}

TEST_F(DatasetTest, ACharacterSplitMayCutADocument) {
  config_.path = {add("a.txt", "aaaa"), add("b.txt", "bbbbbb")};
  config_.split = "characters";
  config_.validation_fraction = 0.4;
  const Dataset data = open_dataset(config_);
  EXPECT_EQ(text_of(data, *data.train), "aaaa\n\nbb");
  EXPECT_EQ(text_of(data, *data.validation), "bbbb");
}

TEST_F(DatasetTest, ValidationMayHaveItsOwnSources) {
  config_.path = {add("a.txt", "abc")};
  config_.validation = {add("v.txt", "xyz")};
  const Dataset data = open_dataset(config_);
  EXPECT_EQ(text_of(data, *data.train), "abc");
  EXPECT_EQ(text_of(data, *data.validation), "xyz");
  EXPECT_EQ(data.tokenizer->vocab_size(), 6);
}

TEST_F(DatasetTest, NoValidationWhereNoneIsWanted) {
  config_.path = {add("a.txt", "abcabc")};
  config_.validation_fraction = 0;
  const Dataset data = open_dataset(config_);
  EXPECT_EQ(data.train->size(), 6);
  EXPECT_EQ(data.validation->size(), 0);
}

TEST_F(DatasetTest, TheCacheIsUsedAgainAndFollowsItsInputs) {
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
TEST_F(DatasetTest, OneMakesTheCacheAndOthersWait) {
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

TEST_F(DatasetTest, ADamagedCacheIsMadeAgain) {
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

TEST_F(DatasetTest, AFailureLeavesNothingInTheCache) {
  config_.path = {add("a.jsonl", "{\"text\":\"x\"}\n{\"text\":\"y\"}\n{\"text\":\"z\"}\nbroken\n")};
  config_.tokenizer = "bytes";
  expect_error([&] { open_dataset(config_); }, {"a.jsonl:4:"});
  EXPECT_EQ(cached(), 0u);
}

TEST_F(DatasetTest, EmptyCorporaAreRefused) {
  config_.path = {add("a.txt", "")};
  for (const char* tokenizer : {"chars", "bytes"}) {
    config_.tokenizer = tokenizer;
    for (const char* split : {"documents", "characters"}) {
      config_.split = split;
      expect_error([&] { open_dataset(config_); }, {"a.txt", "empty"});
    }
  }
  config_.path = {add("b.txt", "x")};
  config_.validation = {add("e.jsonl", "\n\n")};
  expect_error([&] { open_dataset(config_); }, {"e.jsonl", "empty"});
}

TEST_F(DatasetTest, ShardsAreUsedAsTheyAre) {
  const std::vector<uint16_t> tokens = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0};
  write_values<uint16_t>(folder_ / "n/train.bin", tokens);
  config_.path = {folder_.str("n")};
  Dataset data = open_dataset(config_);
  EXPECT_EQ(data.tokenizer, nullptr);
  EXPECT_EQ(data.train->size(), 9);
  EXPECT_EQ(all_tokens(*data.validation), std::vector<int32_t>{0});
  write_values<uint16_t>(folder_ / "n/val.bin", {77});
  config_.tokenizer = "bytes";
  data = open_dataset(config_);
  EXPECT_NE(data.tokenizer, nullptr);
  EXPECT_EQ(data.train->size(), 10);
  EXPECT_EQ(all_tokens(*data.validation), std::vector<int32_t>{77});
  EXPECT_EQ(open_corpus(config_, nullptr)->size(), 11);
  config_.validation = {add("v.txt", "AB")};
  EXPECT_EQ(all_tokens(*open_dataset(config_).validation), (std::vector<int32_t>{65, 66}));
  config_.path = {folder_.str("n/val.bin")};
  expect_error([&] { open_dataset(config_); }, {"val.bin", "training"});
}

TEST_F(DatasetTest, AWholeCorpusIsOneStream) {
  config_.path = {add("a.txt", "hello")};
  config_.tokenizer = "bytes";
  EXPECT_EQ(open_corpus(config_, nullptr)->size(), 5);
  config_.tokenizer = "chars";
  expect_error([&] { open_corpus(config_, nullptr); }, {"data.tokenizer"});
}

TEST_F(DatasetTest, InvalidUtf8IsRepairedOnce) {
  config_.path = {add("a.txt",
                      "ab\xff"
                      "c\xe2\x82")};
  config_.validation_fraction = 0;
  const Dataset data = open_dataset(config_);
  EXPECT_EQ(text_of(data, *data.train),
            "ab\xef\xbf\xbd"
            "c\xef\xbf\xbd");
}

TEST_F(DatasetTest, TokenizeSplitsIntoShardsAndRefusesToMix) {
  config_.path = {"stories:50KB"};
  config_.tokenizer = "bytes";
  TokenizeOptions options;
  options.tokens_per_shard = 20000;
  const auto tokenizer = make_tokenizer(config_);
  const auto corpus = tokenize_corpus(config_, *tokenizer, folder_ / "out", options);
  EXPECT_GE(corpus.train.size(), 2u);
  EXPECT_EQ(corpus.train[0].filename(), "tokens_train_000000.bin");
  EXPECT_EQ(open_shards(corpus.train)->size(), corpus.train_tokens);
  EXPECT_EQ(open_shards(corpus.validation)->size(), corpus.validation_tokens);
  expect_error([&] { tokenize_corpus(config_, *tokenizer, folder_ / "out", options); },
               {"holds shards already"});
  config_.path = {folder_.str("out")};
  EXPECT_EQ(open_dataset(config_).train->size(), corpus.train_tokens);
}

// Cutting a long document must not change its tokens.
TEST_F(DatasetTest, CutsKeepTheTokens) {
  const auto source_text = [] {
    std::string text;
    const auto source = open_source({"stories:200KB"});
    while (const auto story = source->next()) text += std::string(story->text) + "\n\n";
    return text;
  }();
  std::vector<std::string> tokenizers = {"bytes"};
  if (std::filesystem::exists("../shared/data/gpt2")) tokenizers.push_back("../shared/data/gpt2");
  for (const std::string& name : tokenizers) {
    const auto tokenizer = open_tokenizer(name);
    const auto cuts = find_cuts(*tokenizer, source_text, 5000);
    EXPECT_GT(cuts.size(), 20u);
    EXPECT_EQ(cuts.back(), source_text.size());
    std::vector<TokenId> parts;
    size_t begin = 0;
    for (const size_t end : cuts) {
      const auto piece =
          tokenizer->encode(std::string_view(source_text).substr(begin, end - begin));
      parts.insert(parts.end(), piece.begin(), piece.end());
      begin = end;
    }
    EXPECT_EQ(parts, tokenizer->encode(source_text)) << name;
  }
  const auto bytes = open_tokenizer("bytes");
  EXPECT_EQ(find_cuts(*bytes, std::string(50000, '-'), 5000), std::vector<size_t>{50000});
  EXPECT_TRUE(find_cuts(*bytes, "", 5000).empty());
}

TEST_F(DatasetTest, SettingsAreDescribed) {
  Fields fields;
  DataConfig config;
  describe(fields, config);
  fields.set("data.path", "a.txt", "here");
  EXPECT_EQ(config.path, std::vector<std::string>{"a.txt"});
  EXPECT_THROW(fields.set("data.split", "halves", "here"), Error);
  EXPECT_THROW(fields.set("data.validation_fraction", 1.0, "here"), Error);
  EXPECT_THROW(fields.set("data.context", 0, "here"), Error);
}

}  // namespace
}  // namespace refract
