#include "serve/choice.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/simple_tokenizers.h"

namespace refract {
namespace choice_test {

TokenScore byte(unsigned char value) { return {static_cast<TokenId>(value), -1.0F, {}}; }

struct Told {
  std::vector<std::string> pieces;
  std::string text;
  std::vector<TokenId> tokens;
  std::vector<int64_t> offsets;
  void add(const Choice::Piece& piece) {
    pieces.push_back(piece.text);
    text += piece.text;
    for (const ShownToken& token : piece.tokens) {
      tokens.push_back(token.score.token);
      offsets.push_back(token.offset);
    }
  }
};

// Byte by byte, until it is stopped.
Told told(const std::string& text, const std::vector<std::string>& stops, int64_t offset = 0) {
  const auto tokenizer = make_byte_tokenizer();
  Choice choice(*tokenizer, {'x'}, stops, offset);
  Told told;
  for (const char c : text) {
    told.add(choice.add(byte(static_cast<unsigned char>(c))));
    if (choice.stopped()) break;
  }
  told.add(choice.finish());
  return told;
}

TEST(Choice, TellsATokenAsItComes) {
  const Told all = told("abc", {});
  EXPECT_EQ(all.pieces, (std::vector<std::string>{"a", "b", "c", ""}));
  EXPECT_EQ(all.tokens, (std::vector<TokenId>{'a', 'b', 'c'}));
  EXPECT_EQ(all.offsets, (std::vector<int64_t>{0, 1, 2}));
}

TEST(Choice, EndsBeforeItsStopString) {
  const Told all = told("one two three", {"two"});
  EXPECT_EQ(all.text, "one ");
  EXPECT_EQ(all.tokens, (std::vector<TokenId>{'o', 'n', 'e', ' '}));
}

TEST(Choice, HoldsBackWhatMayBecomeAStopString) {
  const Told all = told("a##b###c", {"###"});
  EXPECT_EQ(all.pieces, (std::vector<std::string>{"a", "", "", "##b", "", "", "", ""}));
  EXPECT_EQ(all.text, "a##b");
  EXPECT_EQ(all.tokens.size(), 4U);
}

TEST(Choice, GivesWhatItHeldBackAtTheEnd) {
  EXPECT_EQ(told("a##", {"###"}).text, "a##");
  EXPECT_EQ(told("a##", {"###"}).tokens.size(), 3U);
}

TEST(Choice, TakesTheFirstOfSeveralStopStrings) {
  EXPECT_EQ(told("abcd", {"cd", "bc"}).text, "a");
  EXPECT_EQ(told("aab", {"ab", "aab"}).text, "");
  EXPECT_EQ(told("abab.", {"aba.", "b."}).text, "aba");
}

TEST(Choice, FindsStopStringsOfSeveralBytes) {
  const Told all = told("né😀!", {"😀"});
  EXPECT_EQ(all.text, "né");
  EXPECT_EQ(told("né", {"é"}).text, "n");
}

TEST(Choice, GivesWholeCharactersAndCountsThem) {
  const Told all = told("aé😀b", {}, /*offset=*/10);
  EXPECT_EQ(all.pieces, (std::vector<std::string>{"a", "", "é", "", "", "", "😀", "b", ""}));
  EXPECT_EQ(all.offsets, (std::vector<int64_t>{10, 11, 11, 12, 12, 12, 12, 13}));
}

TEST(Choice, AnEndOfTheTextHasAScoreAndNoText) {
  const auto tokenizer = make_byte_tokenizer();
  Choice choice(*tokenizer, {'x'}, {}, 0);
  Told all;
  all.add(choice.add_silent({256, -0.5F, {}}));
  all.add(choice.finish());
  EXPECT_EQ(all.text, "");
  EXPECT_EQ(all.tokens, (std::vector<TokenId>{256}));
}

TEST(TokenText, ShowsBytesThatAreNoCharacter) {
  const auto tokenizer = make_byte_tokenizer();
  EXPECT_EQ(token_text(*tokenizer, std::nullopt, 'a'), "a");
  EXPECT_EQ(token_text(*tokenizer, 'x', 0xE2), "bytes:\\xe2");
}

}  // namespace choice_test
}  // namespace refract
