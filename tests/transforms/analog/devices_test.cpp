// Devices against the formulas, drawn by drawn number and in distribution, and against quantiles of
// aihwkit's own models (aihwkit_noise.json, made by aihwkit_noise.py beside it).
#include "transforms/analog/devices.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "core/random.h"
#include "ops/numeric/normal_noise.h"
#include "support/kolmogorov_smirnov.h"

namespace refract {
namespace analog_devices_test {

using nlohmann::json;

constexpr double kFirst = 20, kPulse = 250e-9;

at::Tensor at_level(double level, int64_t count) {
  return at::full({count}, level, at::TensorOptions().dtype(at::kDouble));
}

// The program's own numbers, of a chip.
DeviceDraw chip(int64_t number) {
  return [number](const at::Tensor& like, const std::string& role) {
    return normal_noise(like, number, static_cast<int64_t>(stream_id(role)),
                        at::tensor({0, 0}, at::TensorOptions().dtype(at::kLong)));
  };
}

double pcm_deviation(double g) { return (0.26348 + 1.9650 * g - 1.1731 * g * g) / 25; }

// One number at a time, from the numbers that were drawn.
TEST(AnalogDevices, APcmDeviceIsTheFormulaOfItsDraws) {
  const at::Tensor g = at::rand({500}, at::TensorOptions().dtype(at::kDouble));
  g[0] = 0;
  g[1] = 1;
  std::map<std::string, at::Tensor> drawn;
  const DeviceDraw draw = [&](const at::Tensor& like, const std::string& role) {
    return drawn[role] = at::randn(like.sizes(), like.options());
  };
  for (const double t : {1.0, 3600.0, 31536000.0}) {
    const ProgrammedWeights found = program_devices(g, {"pcm", t, 1, 0}, draw, "plus");
    for (int64_t i = 0; i < g.size(0); ++i) {
      const auto of = [&](const char* role) { return drawn.at(role)[i].item<double>(); };
      const double target = g[i].item<double>();
      const double p = std::max(0.0, target + pcm_deviation(target) * of("plus.programming"));
      EXPECT_NEAR(found.programmed[i].item<double>(), p, 1e-12);
      const double log_g = std::log(std::max(target, 1e-7));
      const double mean = std::clamp(-0.0155 * log_g + 0.0244, 0.049, 0.1);
      const double deviation = std::clamp(-0.0125 * log_g - 0.0059, 0.008, 0.045);
      const double nu = std::abs(mean + deviation * of("plus.drift"));
      const double drifted = p * std::pow((t + kFirst) / kFirst, -nu);
      const double q = std::min(0.2, 0.0088 / std::max(std::pow(p, 0.65), 1e-3));
      const double read = q * std::sqrt(std::log((t + kFirst + kPulse) / (2 * kPulse)));
      EXPECT_NEAR(found.now[i].item<double>(),
                  std::max(0.0, drifted * (1 + read * of("plus.reading"))), 1e-12);
    }
  }
}

TEST(AnalogDevices, RightAfterProgrammingNothingHasDrifted) {
  const at::Tensor w = at::rand({40}).mul_(2).sub_(1);
  const ProgrammedWeights found = program_weights(w, {"pcm", 0, 1, 0}, chip(1));
  EXPECT_TRUE(found.now.is_same(found.programmed));
  EXPECT_FALSE(found.now.equal(w));
}

// The distribution of max(g + s xi, 0).
template <class Deviation>
void expect_programmed(const DeviceModel& model, const Deviation& deviation) {
  const int64_t n = 50'000;
  for (const double g : {0.0, 0.01, 0.05, 0.2, 0.5, 0.8, 1.0}) {
    const at::Tensor found = program_devices(at_level(g, n), model, chip(7), "plus").programmed;
    const double s = deviation(g);
    EXPECT_LT(
        testing::ks_distance(
            found, [&](double x) { return x < 0 ? 0 : testing::normal_distribution((x - g) / s); }),
        testing::ks_limit(n))
        << model.preset << " " << model.time << " " << g;
  }
}

TEST(AnalogDevices, ProgrammedConductancesHaveTheirDistributionInEachBin) {
  expect_programmed({"pcm", 0, 1, 0}, pcm_deviation);
  expect_programmed({"pcm", 0, 0.5, 0}, [](double g) { return pcm_deviation(g) / 2; });
  expect_programmed({"reram-wan", 1, 1, 0}, [](double g) {
    return (0.348 + 16.030 * g - 43.853 * g * g + 45.393 * g * g * g - 16.815 * g * g * g * g) / 40;
  });
  expect_programmed({"reram-wan", 86400, 1, 0}, [](double g) {
    return (0.701 + 22.086 * g - 50.773 * g * g + 47.095 * g * g * g - 16.458 * g * g * g * g) / 40;
  });
}

TEST(AnalogDevices, AFactorOfProgrammingIsOfNothingElse) {
  const at::Tensor g = at::tensor({0.0, 0.3, 1.0}, at::TensorOptions().dtype(at::kDouble));
  for (const char* preset : {"pcm", "reram-wan"}) {
    const at::Tensor plain = programming_deviation(g, {preset, 0, 1, 0, 1});
    const at::Tensor wide = programming_deviation(g, {preset, 0, 1, 0, 5});
    EXPECT_LT((wide - 5 * plain).abs().max().item<double>(), 1e-12) << preset;
  }
  // From what was programmed on, everything is as without it.
  const DeviceModel none{"pcm", 1e6, 1, 0, 0};
  const ProgrammedWeights found = program_devices(g, none, chip(3), "plus");
  EXPECT_TRUE(found.programmed.equal(g));
  const DeviceDraw without_first = [&](const at::Tensor& like, const std::string& role) {
    return role == "plus.programming" ? at::zeros_like(like) : chip(3)(like, role);
  };
  EXPECT_TRUE(
      found.now.equal(program_devices(g, {"pcm", 1e6, 1, 0, 1}, without_first, "plus").now));
}

// nu from two readings of the same device without reading noise: |N(mean, deviation)|.
TEST(AnalogDevices, DriftExponentsHaveTheirDistributionInEachBin) {
  const int64_t n = 50'000;
  const double t = 1e6;
  const DeviceDraw drift_alone = [](const at::Tensor& like, const std::string& role) {
    return role == "plus.drift" ? chip(3)(like, role) : at::zeros_like(like);
  };
  for (const double g : {1e-4, 0.01, 0.1, 0.4, 1.0}) {
    const ProgrammedWeights found =
        program_devices(at_level(g, n), {"pcm", t, 1, 0}, drift_alone, "plus");
    const at::Tensor nu =
        found.now.div(found.programmed).log().div(-std::log((t + kFirst) / kFirst));
    const double mean = std::clamp(-0.0155 * std::log(g) + 0.0244, 0.049, 0.1);
    const double deviation = std::clamp(-0.0125 * std::log(g) - 0.0059, 0.008, 0.045);
    const auto folded = [&](double x) {
      return x < 0 ? 0
                   : testing::normal_distribution((x - mean) / deviation) -
                         testing::normal_distribution((-x - mean) / deviation);
    };
    EXPECT_LT(testing::ks_distance(nu, folded), testing::ks_limit(n)) << g;
  }
}

// Between the times that were fitted the deviation lies between theirs, and beyond them it stays.
TEST(AnalogDevices, ResistiveMemoryIsHeldBeyondWhatWasMeasured) {
  const at::Tensor g = at::tensor({0.0, 0.3, 0.6, 1.0});
  const auto at_time = [&](double t) { return programming_deviation(g, {"reram-wan", t, 1, 0}); };
  EXPECT_TRUE(at_time(0).equal(at_time(1)));
  EXPECT_TRUE(at_time(3e7).equal(at_time(172800)));
  const at::Tensor middle = at_time(std::sqrt(86400.0));
  EXPECT_LT((middle - (at_time(1) + at_time(86400)).div(2)).abs().max().item<double>(), 1e-7);
}

// The tables hold quantiles q_p of aihwkit's values, so the empirical distribution at q_p is p but
// for both samples' noise. Where a distribution jumps (at 0) several p have one quantile.
TEST(AnalogDevices, DistributionsAreAihwkitsOwn) {
  const char* path = "tests/transforms/analog/aihwkit_noise.json";
  std::ifstream file(path);
  if (!file) GTEST_SKIP() << "the tests' tables are not here";
  const json table = json::parse(file);
  const int64_t n = 100'000, theirs = table["count"].get<int64_t>();
  const double limit = testing::ks_limit(n * theirs / (n + theirs));
  const auto probabilities = table["probabilities"].get<std::vector<double>>();
  int64_t compared = 0;
  for (const json& row : table["rows"]) {
    const DeviceModel model{row["preset"].get<std::string>(), row["time"].get<double>(), 1, 0};
    const auto quantiles = row["quantiles"].get<std::vector<double>>();
    const at::Tensor found =
        program_devices(at_level(row["level"].get<double>(), n), model, chip(11 + compared), "plus")
            .now;
    const std::vector<double> values = testing::sorted_values(found);
    for (size_t i = 0; i < quantiles.size(); ++i) {
      const auto share = [&](auto end) {
        return static_cast<double>(end - values.begin()) / static_cast<double>(n);
      };
      const double q = quantiles[i], rounding = 1e-7;
      const double below = share(std::lower_bound(values.begin(), values.end(), q - rounding));
      const double up_to = share(std::upper_bound(values.begin(), values.end(), q + rounding));
      EXPECT_LT(below, probabilities[i] + limit) << row["preset"] << row["time"] << row["level"];
      EXPECT_GT(up_to, probabilities[i] - limit) << row["preset"] << row["time"] << row["level"];
      ++compared;
    }
  }
  EXPECT_GT(compared, 1000);
}

TEST(AnalogDevices, AWeightIsTwoDevicesAndGaussianOnesAreOne) {
  const at::Tensor w = at::tensor({0.5, -0.5, 0.0}, at::TensorOptions().dtype(at::kDouble));
  const ProgrammedWeights pair = program_weights(w, {"pcm", 0, 1, 0}, chip(5));
  const at::Tensor plus = program_devices(w.clamp_min(0), {"pcm", 0, 1, 0}, chip(5), "plus").now;
  const at::Tensor minus =
      program_devices(w.neg().clamp_min(0), {"pcm", 0, 1, 0}, chip(5), "minus").now;
  EXPECT_TRUE(pair.now.equal(plus - minus));
  const ProgrammedWeights one = program_weights(w, {"gaussian", 0, 2, 0.1}, chip(5));
  const at::Tensor xi = chip(5)(w, "programming").to(at::kDouble);
  EXPECT_LT((one.now - (w + xi * 0.2)).abs().max().item<double>(), 1e-12);
}

}  // namespace analog_devices_test
}  // namespace refract
