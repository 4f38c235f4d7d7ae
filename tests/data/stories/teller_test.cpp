// The teller keeps its people apart and its grammar right.
#include "data/stories/teller.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <regex>
#include <stdexcept>

#include "ops/common/philox.h"

namespace refract {
namespace teller_test {

// A story of one child never calls the child by the other gender's pronoun.
TEST(Teller, PronounsAgree) {
  for (uint64_t i = 0; i < 500; ++i) {
    stories::Dice dice(philox_key(1, 2), i, 0);
    stories::Teller teller(dice);
    teller.person('H');
    teller.introduce('H');
    teller.say("{H} {~walked} home, and {H:his} friends saw {H:him}.");
    teller.speak('H', "I am here", '!');
    teller.say("{H} hurt {H:self}, and {H:he} cried.");
    const bool girl = teller.at('H').female;
    const std::regex other(girl ? R"(\b([Hh]e|[Hh]is|[Hh]im|himself)\b)"
                                : R"(\b([Ss]he|[Hh]er|herself)\b)");
    EXPECT_FALSE(std::regex_search(teller.text(), other)) << teller.text();
  }
}

// Where two of the same gender could be meant, the name stands.
TEST(Teller, PronounsAreClear) {
  for (uint64_t i = 0; i < 500; ++i) {
    stories::Dice dice(philox_key(1, 3), i, 0);
    stories::Teller teller(dice);
    teller.person('A'), teller.person('B');
    teller.say("{A} met {B}. {B} greeted {A:him}.");
    const bool same = teller.at('A').female == teller.at('B').female;
    const std::regex pronoun(R"(\b([Hh]e|[Hh]im|[Ss]he|[Hh]er)\b)");
    EXPECT_NE(same, std::regex_search(teller.text(), pronoun)) << teller.text();
    EXPECT_TRUE(std::regex_search(teller.text(), std::regex(teller.at('B').name)));
  }
}

TEST(Teller, ArticlesFitTheirWord) {
  stories::Dice dice(philox_key(1, 4), 0, 0);
  stories::Teller teller(dice);
  teller.say(
      "a old owl and a useful key, a unicorn, a egg. \"a apple,\" said a elf. it was a ship.");
  EXPECT_EQ(
      teller.text(),
      "An old owl and a useful key, a unicorn, an egg. \"An apple,\" said an elf. It was a ship.");
}

TEST(Teller, PatternMistakesAreErrors) {
  stories::Dice dice(philox_key(1, 5), 0, 0);
  stories::Teller teller(dice);
  EXPECT_THROW(teller.say("{Z} was not made"), std::logic_error);
  EXPECT_THROW(teller.say("{~nolist}"), std::logic_error);
  EXPECT_THROW(teller.say("[a|b"), std::logic_error);
}

}  // namespace teller_test
}  // namespace refract
