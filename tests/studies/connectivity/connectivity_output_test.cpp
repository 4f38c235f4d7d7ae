#include "studies/connectivity/connectivity_output.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <optional>

namespace refract {
namespace connectivity_output_test {

// A path whose middle lies `relative` above its ends, whose loss is 2.
PairPath pair_with(double relative) {
  PairPath pair;
  pair.b = 1;
  pair.path.alphas = {0, 0.5, 1};
  PathSplit split{"train", {}};
  for (const double loss : {2.0, 2 * (1 + relative), 2.0}) split.points.push_back({loss, 0.5, 10});
  pair.path.splits = {split};
  return pair;
}

ConnectivityResult result_of(const std::vector<std::vector<double>>& barriers) {
  ConnectivityResult result;
  result.folder = "runs/x";
  result.pairs = "twins";
  result.members = {"a", "b"};
  result.threshold = 0.02;
  for (size_t seed = 0; seed < barriers.size(); ++seed) {
    result.seeds.push_back(static_cast<int64_t>(seed));
    for (size_t i = 0; i < barriers[seed].size(); ++i) {
      const auto spawn = static_cast<int64_t>(100 * i);
      if (seed == 0) result.spawns.push_back(spawn);
      result.spawned.push_back({static_cast<int64_t>(seed), spawn, {pair_with(barriers[seed][i])}});
    }
  }
  return result;
}

TEST(ConnectivityOutput, CopiesAreConnectedFromTheFirstStepAfterTheLastBarrier) {
  EXPECT_EQ(result_of({{0.5, 0.3, 0.01, 0}}).connected_from(), 200);
  EXPECT_EQ(result_of({{0.5, 0.01, 0.3, 0}}).connected_from(), 300);
  EXPECT_EQ(result_of({{0.01, 0}}).connected_from(), 0);
  EXPECT_EQ(result_of({{0.01, 0.3}}).connected_from(), std::nullopt);
  // Of every seed.
  EXPECT_EQ(result_of({{0.5, 0.01, 0}, {0.5, 0.4, 0}}).connected_from(), 200);
}

TEST(ConnectivityOutput, TheTextSaysSo) {
  const auto text = [](const std::vector<double>& barriers) {
    return connectivity_text(result_of({barriers}));
  };
  EXPECT_NE(text({0.5, 0.01}).find("connected from step 100 on, and not yet at step 0"),
            std::string::npos);
  EXPECT_NE(text({0.01, 0.01}).find("connected from step 0 on, the first"), std::string::npos);
  EXPECT_NE(text({0.5, 0.5}).find("part at step 100, the last that was tried, are not connected"),
            std::string::npos);
  EXPECT_NE(text({0.01}).find("part at step 0 are connected"), std::string::npos);
  EXPECT_EQ(connectivity_json(result_of({{0.5, 0.01}}))["connected_from"], 100);
  EXPECT_TRUE(connectivity_json(result_of({{0.5, 0.5}}))["connected_from"].is_null());
}

}  // namespace connectivity_output_test
}  // namespace refract
