#include "analysis/digital_choice.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace refract::digital_choice_test {

std::vector<DigitalChoice> equal_modules(int64_t count) {
  std::vector<DigitalChoice> modules;
  for (int64_t i = 0; i < count; ++i)
    modules.push_back({std::to_string(i), 0.001 * static_cast<double>(i % 7 + 1), 10});
  return modules;
}

double multiplications(const std::vector<DigitalChoice>& modules, const Chosen& chosen) {
  double sum = 0;
  for (const size_t i : chosen) sum += modules[i].multiplications;
  return sum;
}

TEST(DigitalChoice, GainAndWorthRankDifferently) {
  const std::vector<DigitalChoice> modules = {
      {"large", 3, 90}, {"small", 2, 10}, {"harmless", 0, 1}, {"smaller", 1, 20}};
  EXPECT_EQ(choose_by_gain(modules, 100), (Chosen{0, 1}));
  EXPECT_EQ(choose_by_worth(modules, 100), (Chosen{1, 3})) << "the large one does not fit any more";
  EXPECT_EQ(choose_by_worth(modules, 5), Chosen{});
}

TEST(DigitalChoice, TakesTheMostGainForItsCost) {
  const std::vector<DigitalChoice> modules = {
      {"a", 1.0, 10}, {"b", 3.0, 10}, {"c", 0.5, 1}, {"d", -1.0, 1}, {"e", 2.0, 30}};
  EXPECT_EQ(choose_by_worth(modules, 11), (Chosen{2, 1}));
  EXPECT_EQ(choose_by_worth(modules, 0), Chosen{});
  EXPECT_EQ(choose_by_worth(modules, 1000), (Chosen{2, 1, 0, 4}));
}

// Two modules ruin the model together: leaving one of them out wins next to nothing, and leaving a
// third one out wins a little. What they cost alone says which.
TEST(DigitalChoice, OneByOneFindsModulesThatRuinTogether) {
  std::vector<DigitalChoice> modules = equal_modules(40);
  modules[11].gain = modules[30].gain = 5;
  const auto loss = [](const Chosen& without) {
    const std::set<size_t> out(without.begin(), without.end());
    const bool ruined = !out.contains(11) || !out.contains(30);
    return ruined ? 10.0 : 3.0 - 0.001 * static_cast<double>(without.size());
  };
  const Chosen chosen = choose_in_turn(modules, 30, {}, loss, 100);
  EXPECT_EQ(chosen.size(), 3);
  EXPECT_TRUE(std::count(chosen.begin(), chosen.end(), 11) == 1 &&
              std::count(chosen.begin(), chosen.end(), 30) == 1);
}

// Alone 0 costs most, but beside the others it costs nothing: its damage is done already.
TEST(DigitalChoice, OneByOneMeasuresBesideWhatIsChosen) {
  const std::vector<DigitalChoice> modules = {{"0", 3, 10}, {"1", 2.5, 10}, {"2", 2, 10}};
  const auto loss = [](const Chosen& without) {
    const std::set<size_t> out(without.begin(), without.end());
    return 10.0 - (out.contains(1) ? 2 : 0) - (out.contains(2) ? 3 : 0) -
           (out.contains(0) && out.contains(1) ? 1 : 0);
  };
  EXPECT_EQ(choose_in_turn(modules, 10, {}, loss, 100), Chosen{2});
  EXPECT_EQ(choose_in_turn(modules, 20, {}, loss, 100), (Chosen{2, 1}));
  EXPECT_EQ(choose_in_turn(modules, 20, {0}, loss, 100), (Chosen{0, 1})) << "3 beside 0, as 2 is";
  EXPECT_EQ(choose_by_worth(modules, 20), (Chosen{0, 1}));
}

TEST(DigitalChoice, MeasuresNoMoreThanItMay) {
  const std::vector<DigitalChoice> modules = equal_modules(100);
  int64_t count = 0;
  const auto loss = [&](const Chosen& without) {
    ++count;
    return 1.0 - 0.001 * static_cast<double>(without.size());
  };
  EXPECT_EQ(choose_in_turn(modules, 500, {}, loss, 12).size(), 50);
  EXPECT_LE(count, 1 + 12 + 5) << "a turn is not cut off";
  EXPECT_GE(count, 12);
}

TEST(DigitalChoice, UniformChoicesFitTheBudgetAndDiffer) {
  std::vector<DigitalChoice> modules = equal_modules(60);
  for (size_t i = 0; i < modules.size(); i += 3) modules[i].multiplications = 25;
  double total = 0;
  for (const DigitalChoice& module : modules) total += module.multiplications;
  const std::vector<UniformChoice> all = uniform_choices(modules, 0.1 * total);
  ASSERT_EQ(all.size(), 6);
  std::set<std::set<size_t>> different;
  for (const UniformChoice& choice : all) {
    const double used = multiplications(modules, choice.chosen);
    EXPECT_LE(used, 0.1 * total) << choice.name;
    EXPECT_GE(used, 0.07 * total) << choice.name;
    different.insert({choice.chosen.begin(), choice.chosen.end()});
  }
  EXPECT_EQ(different.size(), all.size());
  EXPECT_EQ(all[1].chosen.front(), 0);
  EXPECT_EQ(all[2].chosen.front(), 59);
  // Every sixth of the modules has its share of an even spread.
  for (size_t from = 0; from < 60; from += 20) {
    EXPECT_GE(std::count_if(all[0].chosen.begin(), all[0].chosen.end(),
                            [&](size_t i) { return i >= from && i < from + 20; }),
              1);
  }
}

}  // namespace refract::digital_choice_test
