#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "report/divergence.h"
#include "report/sweep/sweep_report.h"
#include "support/scratch_folder.h"

namespace refract {
namespace {

Curve curve(std::vector<double> values, double first_step = 10) {
  Curve out;
  for (size_t i = 0; i < values.size(); ++i) {
    out.steps.push_back(first_step + 10 * static_cast<double>(i));
  }
  out.values = std::move(values);
  return out;
}

TEST(Divergence, ALearningRunHasNot) {
  EXPECT_EQ(divergence({}, 0.5), "");
  EXPECT_EQ(divergence({{"mean_loss", curve({4, 3, 2, 1})}}, 0.5), "");
}

TEST(Divergence, ASpikeIsSmoothedAway) {
  // The average moves by at most 0.2 of the spike once it has settled: 0.2 * 2 < 0.5.
  EXPECT_EQ(divergence({{"mean_loss", curve({4, 4, 4, 4, 4, 4, 4, 4, 4, 6, 4, 4})}}, 0.5), "");
}

TEST(Divergence, ALossThatStaysAboveItsStartIs) {
  const auto metrics = [](double level) {
    return std::map<std::string, Curve>{{"mean_loss", curve({4, level, level, level, level})}};
  };
  // The average after n points of which the first is 4 and the others L lies 4 + w (L - 4), with
  // w = 1 - 0.8^(n-1) * 0.2 / (1 - 0.8^n): 0.878 after five.
  EXPECT_EQ(divergence(metrics(4.5), 0.5), "");
  EXPECT_EQ(divergence(metrics(4.56), 0.5), "");
  EXPECT_EQ(divergence(metrics(4.58), 0.5),
            "the smoothed loss is 4.509 at step 50, 4.000 at the start");
  EXPECT_EQ(divergence(metrics(4.58), 0.6), "");
}

TEST(Divergence, MeasuresFromTheFirstEvaluation) {
  std::map<std::string, Curve> metrics = {{"mean_loss", curve({5, 5, 5})}};
  EXPECT_EQ(divergence(metrics, 0.5), "");
  metrics["validation_loss"] = curve({4.2}, 0);
  EXPECT_EQ(divergence(metrics, 0.5), "the smoothed loss is 5.000 at step 30, 4.200 at the start");
  metrics["validation_loss"] = curve({4.2}, 100);  // not of the start
  EXPECT_EQ(divergence(metrics, 0.5), "");
}

TEST(Divergence, WhatIsNotFiniteIs) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(divergence({{"grad_norm", curve({1, nan})}}, 1e9),
            "grad_norm is not finite at step 20");
}

TEST(ShortKeys, AreTheLastPartUnlessThatIsAmbiguous) {
  const std::vector<std::string> keys = {"optimizer.lr", "transform.0.rank", "transform.1.rank"};
  EXPECT_EQ(short_keys(keys),
            (std::vector<std::string>{"lr", "transform.0.rank", "transform.1.rank"}));
}

SweepRecord two_runs() {
  SweepRecord sweep{.recipe = "r.toml", .keys = {"optimizer.betas"}, .runs = {}};
  sweep.runs.push_back({.name = "a",
                        .values = {"[0.9, 0.95]"},
                        .settings = "{}",
                        .state = SweepState::kFailed,
                        .reason = "a \"quoted\"\nreason"});
  sweep.runs.push_back({.name = "b",
                        .values = {"0.9"},
                        .settings = "{\"x\":[1]}",
                        .state = SweepState::kFinished,
                        .reason = ""});
  return sweep;
}

TEST(SweepRecord, ReadsWhatItWrote) {
  const ScratchFolder scratch;
  EXPECT_FALSE(read_sweep(scratch.path()).has_value());
  write_sweep(scratch.path(), two_runs());
  const SweepRecord read = read_sweep(scratch.path()).value();
  EXPECT_EQ(read.recipe, "r.toml");
  EXPECT_EQ(read.keys, two_runs().keys);
  ASSERT_EQ(read.runs.size(), 2u);
  EXPECT_EQ(read.runs[0].values, two_runs().runs[0].values);
  EXPECT_EQ(read.runs[0].state, SweepState::kFailed);
  EXPECT_EQ(read.runs[0].reason, two_runs().runs[0].reason);
  EXPECT_EQ(read.runs[1].settings, "{\"x\":[1]}");
  write_file_atomically(scratch.path() / "sweep.json", "{\"recipe\": 3}");
  EXPECT_THROW(read_sweep(scratch.path()), Error);
}

TEST(SweepOutcome, SortsFinishedRunsFirstAndQuotesItsCsv) {
  const ScratchFolder scratch;
  std::filesystem::create_directories(scratch.path() / "b");
  write_file_atomically(
      scratch.path() / "b" / "metrics.jsonl",
      "{\"step\":10,\"mean_loss\":2.5}\n{\"step\":10,\"validation_loss\":2.25}\n");
  const SweepOutcome outcome = read_outcome(scratch.path(), two_runs());
  ASSERT_EQ(outcome.rows.size(), 2u);
  EXPECT_EQ(outcome.rows[0].run.name, "b");
  EXPECT_EQ(outcome.rows[0].final_loss(), 2.25);
  EXPECT_EQ(outcome_csv(outcome),
            "run,state,optimizer.betas,step,training_loss,validation_loss,lowest_validation_loss,"
            "validation_perplexity,validation_accuracy,tokens,tokens_per_second,reason\r\n"
            "b,finished,0.9,10,2.5,2.25,2.25,,,,,\r\n"
            "a,failed,\"[0.9, 0.95]\",0,,,,,,,,\"a \"\"quoted\"\"\nreason\"\r\n");
  const nlohmann::json json = outcome_json(outcome);
  EXPECT_EQ(json[0]["validation_loss"], 2.25);
  EXPECT_TRUE(json[1]["validation_loss"].is_null());
}

}  // namespace
}  // namespace refract
