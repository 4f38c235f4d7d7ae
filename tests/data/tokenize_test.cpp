#include "data/tokenize.h"

#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "data/dataset.h"
#include "data/source.h"
#include "data/tokens.h"
#include "support/corpus.h"
#include "support/errors.h"

namespace refract {
namespace tokenize_test {

using testing::expect_error;

using TokenizeTest = testing::CorpusTest;

TEST_F(TokenizeTest, TokenizeSplitsIntoShardsAndRefusesToMix) {
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
TEST_F(TokenizeTest, CutsKeepTheTokens) {
  const auto source_text = [] {
    std::string text;
    const auto source = open_source({"stories:200KB"});
    while (const auto story = source->next()) text.append(story->text).append("\n\n");
    return text;
  }();
  std::vector<std::string> tokenizers = {"bytes"};
  if (std::filesystem::exists("../shared/data/gpt2"))
    tokenizers.emplace_back("../shared/data/gpt2");
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

}  // namespace tokenize_test
}  // namespace refract
