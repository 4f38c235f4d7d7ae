// From settings to token streams: splits, shards, and what is refused.
#include "data/dataset.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "support/corpus.h"
#include "support/errors.h"
#include "support/token_files.h"

namespace refract {
namespace dataset_test {

using testing::all_tokens;
using testing::expect_error;
using testing::write_values;

using DatasetTest = testing::CorpusTest;

std::string text_of(const Dataset& data, const TokenStream& stream) {
  return data.tokenizer->decode(all_tokens(stream));
}

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

TEST(Dataset, IsolatedDocumentsBeginWithTheTokenizersEndOfText) {
  DataConfig config;
  const auto bytes = open_tokenizer("bytes");
  resolve_document_token(config, bytes.get());
  EXPECT_EQ(config.document_token, -1);  // documents are joined
  config.documents = "isolated";
  expect_error([&] { resolve_document_token(config, make_char_tokenizer("ab").get()); },
               {"chars", "no end-of-text token", "data.document_token"});
  expect_error([&] { resolve_document_token(config, nullptr); }, {"data.tokenizer"});
  resolve_document_token(config, bytes.get());
  EXPECT_EQ(config.document_token, 256);
  config.document_token = 7;
  resolve_document_token(config, nullptr);
  EXPECT_EQ(config.document_token, 7);
}

}  // namespace dataset_test
}  // namespace refract
