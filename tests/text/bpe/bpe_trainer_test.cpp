#include "text/bpe/bpe_trainer.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "text/hf_tokenizer.h"

namespace refract {
namespace bpe_trainer_test {

using nlohmann::json;

json train(BpeTrainingOptions options, const std::vector<std::string>& documents) {
  BpeTrainer trainer(std::move(options));
  for (const auto& document : documents) trainer.add(document);
  return json::parse(trainer.finish());
}

TEST(BpeTrainer, MergesTheMostFrequentPairThenTheSmallestIds) {
  BpeTrainingOptions options;
  options.vocab_size = 257 + 4;
  // Counts: ab 5; cd 3 and ef 3, a tie that goes to the smaller ids; each line a word.
  const json file =
      train(options, {"ab", "ab", "ab", "ab", "ab", "ef", "ef", "ef", "cd", "cd", "cd", "gh"});
  EXPECT_EQ(file["model"]["merges"], json::parse(R"([["a","b"], ["c","d"], ["e","f"]])"));
  EXPECT_EQ(file["model"]["vocab"]["<|endoftext|>"], 0);
  EXPECT_EQ(file["model"]["vocab"]["!"], 1);
  EXPECT_EQ(file["model"]["vocab"].size(), 260u);
}

TEST(BpeTrainer, DoesNotDependOnTheOrderOfDocuments) {
  const std::vector<std::string> documents{"one two three two one", "three four four", "five 55"};
  const std::vector<std::string> reversed(documents.rbegin(), documents.rend());
  EXPECT_EQ(train({}, documents), train({}, reversed));
}

TEST(BpeTrainer, StopsAtTheMinimumFrequency) {
  BpeTrainingOptions options;
  options.min_frequency = 3;
  const json file = train(options, {"ab ab ab cd cd"});
  for (const auto& merge : file["model"]["merges"]) EXPECT_NE(merge, (json{"c", "d"}));
  EXPECT_FALSE(file["model"]["merges"].empty());
}

TEST(BpeTrainer, ResultEncodesAndDecodes) {
  for (const char* pre_tokenizer : {"gpt2", "digits", "llama3"}) {
    BpeTrainingOptions options;
    options.pre_tokenizer = pre_tokenizer;
    options.special_tokens = {"<|endoftext|>", "<pad>"};
    const std::string text = "the cat and the dog saw 1234 cats; the end\n\n";
    const json file = train(options, {text, text});
    const auto tokenizer = make_hf_tokenizer({{"tokenizer.json", file.dump()}}, "trained");
    const std::string other = "the dog — the 😀 cat 12345<pad>";
    EXPECT_EQ(tokenizer->decode(tokenizer->encode(other)), other);
    EXPECT_LT(tokenizer->encode(text).size(), text.size() / 2);
    EXPECT_EQ(tokenizer->end_of_text(), 0);
  }
}

TEST(BpeTrainer, RefusesImpossibleSettings) {
  BpeTrainingOptions options;
  options.vocab_size = 256;
  EXPECT_THROW(BpeTrainer{options}, Error);
  options = {};
  options.special_tokens = {"a", "a"};
  EXPECT_THROW(BpeTrainer{options}, Error);
  options = {};
  options.pre_tokenizer = "whitespace";
  EXPECT_THROW(BpeTrainer{options}, Error);
  EXPECT_THROW(BpeTrainer({}).finish(), Error);
}

}  // namespace bpe_trainer_test
}  // namespace refract
