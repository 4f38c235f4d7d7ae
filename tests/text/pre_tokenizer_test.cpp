#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

namespace refract {
namespace pre_tokenizer_test {

using Words = std::vector<std::string>;

Words words_of(const PreTokenizer& pre_tokenizer, std::string_view text) {
  Words words;
  auto collect = [&](std::string_view word) { words.emplace_back(word); };
  PreTokenizer::Scratch scratch(pre_tokenizer);
  pre_tokenizer.split(text, scratch, WordSink(collect));
  return words;
}

Words split(std::string_view pattern, SplitBehavior behavior, std::string_view text,
            bool invert = false, bool literal = false) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.add_split(Regex(pattern, literal), behavior, invert);
  return words_of(pre_tokenizer, text);
}

TEST(PreTokenizer, Gpt2Words) {
  const auto gpt2 = [](std::string_view text) {
    return split(kGpt2Pattern, SplitBehavior::kIsolated, text);
  };
  EXPECT_EQ(gpt2("I'm here,  you're 42!"),
            (Words{"I", "'m", " here", ",", " ", " you", "'re", " 42", "!"}));
  EXPECT_EQ(gpt2("a \n\n b  "), (Words{"a", " \n\n", " b", "  "}));
  EXPECT_EQ(gpt2("日本語 ½x"), (Words{"日本語", " ½", "x"}));
  EXPECT_EQ(gpt2(""), Words{});
  // U+180E is white space to PCRE2's \s, not to Unicode since 6.3, nor to `tokenizers`.
  EXPECT_EQ(gpt2("a\u180E!"), (Words{"a", "\u180E!"}));
}

TEST(PreTokenizer, Behaviors) {
  const std::string_view text = "--a-b--c-";
  EXPECT_EQ(split("-", SplitBehavior::kIsolated, text),
            (Words{"-", "-", "a", "-", "b", "-", "-", "c", "-"}));
  EXPECT_EQ(split("-", SplitBehavior::kRemoved, text), (Words{"a", "b", "c"}));
  EXPECT_EQ(split("-", SplitBehavior::kContiguous, text),
            (Words{"--", "a", "-", "b", "--", "c", "-"}));
  EXPECT_EQ(split("-", SplitBehavior::kMergedWithPrevious, text),
            (Words{"-", "-", "a-", "b-", "-", "c-"}));
  EXPECT_EQ(split("-", SplitBehavior::kMergedWithNext, text),
            (Words{"-", "-a", "-b", "-", "-c", "-"}));
  EXPECT_EQ(split("[abc]", SplitBehavior::kRemoved, text, true), (Words{"a", "b", "c"}));
  EXPECT_EQ(split(".", SplitBehavior::kRemoved, "a.b", false, true), (Words{"a", "b"}));
}

TEST(PreTokenizer, EmptyMatchesSplit) {
  EXPECT_EQ(split("(?=[A-Z])", SplitBehavior::kIsolated, "oneTwoÄThree"),
            (Words{"one", "TwoÄ", "Three"}));
  EXPECT_EQ(split(R"(\b)", SplitBehavior::kIsolated, "é, b"), (Words{"é", ", ", "b"}));
}

TEST(PreTokenizer, PrefixSpaceGoesBeforeEveryPiece) {
  PreTokenizer pre_tokenizer;
  pre_tokenizer.add_split(Regex(R"(\p{N})"), SplitBehavior::kIsolated);
  pre_tokenizer.add_prefix_space();
  EXPECT_EQ(words_of(pre_tokenizer, "ab12 c"), (Words{" ab", " 1", " 2", " c"}));
}

TEST(PreTokenizer, LongRunsDoNotExhaustTheMatcher) {
  const std::string letters(3'000'000, 'x'), spaces(3'000'000, ' ');
  EXPECT_EQ(split(kGpt2Pattern, SplitBehavior::kIsolated, letters), Words{letters});
  EXPECT_EQ(split(kGpt2Pattern, SplitBehavior::kIsolated, spaces + "x").size(), 2u);
  // Needs a stack that grows with the text.
  EXPECT_EQ(split("(?:a|b|(?:c))*d|x+", SplitBehavior::kIsolated, letters).size(), 1u);
}

}  // namespace pre_tokenizer_test
}  // namespace refract
