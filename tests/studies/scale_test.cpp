#include "studies/scale.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/files.h"
#include "studies/scale_output.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "support/training.h"

namespace refract {
namespace scale_test {

using testing::error_of;

// The folder of a run of 12 steps on 4 x 8 tokens, as far as its cost and its loss go.
std::filesystem::path add_run(const testing::TemporaryFolder& scratch, const std::string& name,
                              const std::string& metrics, const std::string& transform = "") {
  RunConfig config = tiny_config("scale");
  config.transform = transform;
  resolve(config.model, 16, config.data.context);
  const std::filesystem::path folder = scratch / name;
  config.run.dir = folder.string();
  std::filesystem::create_directories(folder);
  write_file_atomically(folder / "config.toml", to_toml(config));
  write_file_atomically(folder / "metrics.jsonl", metrics);
  return folder;
}

constexpr const char* kMetrics =
    "{\"step\":6,\"validation_loss\":3.5,\"mean_loss\":3.25}\n"
    "{\"step\":12,\"mean_loss\":2.25}\n{\"step\":12,\"validation_loss\":2.5}\n"
    "{\"step\":12,\"validation_loss\":null}\n{\"step\":12,\"validat";

TEST(ReadScaledRun, CountsWhatTheRunCostAndReached) {
  const testing::TemporaryFolder scratch;
  const ScaledRun run = read_scaled_run(add_run(scratch, "dense", kMetrics), "validation_loss");
  EXPECT_EQ(run.folder, scratch / "dense");
  EXPECT_EQ(run.group, "dense");
  EXPECT_EQ(run.tokens, 12 * 4 * 8);
  // Two layers with C = 32: 4 C^2 of attention and 2 C 4C of the feed-forward.
  EXPECT_EQ(run.parameters, 24576);
  // A token's forward pass: two operations for each of these and of the head's 16 x 32, and
  // 4 T C in each layer for attention's products, T = 8. The backward pass costs twice that.
  const double forward = 2 * (24576 + 16 * 32) + 2 * 4 * 8 * 32;
  EXPECT_DOUBLE_EQ(run.flops, 3 * forward * 384);
  // The last number; the null behind it says that the loss was not finite, the rest is torn.
  EXPECT_EQ(run.loss, 2.5);
  EXPECT_EQ(read_scaled_run(scratch / "dense", "mean_loss").loss, 2.25);
}

TEST(ReadScaledRun, GroupsByTheKindsOfTheRules) {
  const testing::TemporaryFolder scratch;
  const ScaledRun run = read_scaled_run(
      add_run(scratch, "low", kMetrics, R"([{"match":".*mlp.*","kind":"low_rank","rank":4}])"),
      "validation_loss");
  EXPECT_EQ(run.group, "low_rank");
  // 4 (C + F) for each of two linear layers, in two layers.
  EXPECT_DOUBLE_EQ(run.flops, 3 * 384 * (2 * (8192 + 4 * 4 * 160 + 512) + 2048.0));
}

TEST(ReadScaledRun, RefusesWhatIsNotFinished) {
  const testing::TemporaryFolder scratch;
  EXPECT_NE(error_of([&] { read_scaled_run(scratch / "none", "mean_loss"); }).find("config.toml"),
            std::string::npos);
  const auto half = add_run(scratch, "half", "{\"step\":6,\"mean_loss\":3}\n");
  EXPECT_NE(error_of([&] {
              read_scaled_run(half, "mean_loss");
            }).find("is not finished: its last mean_loss is of step 6 of 12"),
            std::string::npos);
  EXPECT_NE(error_of([&] {
              read_scaled_run(half, "validation_loss");
            }).find("has no validation_loss in its metrics.jsonl"),
            std::string::npos);
}

// Runs on the law `a` flops^-alpha exactly, all of the same size.
std::vector<ScaledRun> runs_on_law(const std::string& group, double a, double alpha, int count) {
  std::vector<ScaledRun> runs;
  for (int i = count; i > 0; --i) {  // the largest first
    ScaledRun run;
    run.group = group;
    run.flops = 1e6 * std::pow(4, i);
    run.parameters = 1000;
    run.tokens = 1e4 * i;
    run.loss = a * std::pow(run.flops, -alpha);
    runs.push_back(run);
  }
  return runs;
}

TEST(FitScaledRuns, FindsTheLawOfEachGroup) {
  std::vector<ScaledRun> runs = runs_on_law("low_rank", 30, 0.15, 4);
  for (const ScaledRun& run : runs_on_law("dense", 20, 0.1, 4)) runs.push_back(run);
  const ScaleResult result = fit_scaled_runs(runs, "auto", 0.9);
  ASSERT_EQ(result.runs.size(), 8u);
  EXPECT_EQ(result.runs.front().group, "dense");
  EXPECT_EQ(result.runs.front().flops, 4e6);
  ASSERT_EQ(result.fits.size(), 4u);  // over FLOPs and tokens; all are of one size
  EXPECT_EQ(result.fits[0].group, "dense");
  EXPECT_STREQ(result.fits[0].axis->key, "training_flops");
  EXPECT_FALSE(result.fits[0].law.with_offset);
  EXPECT_NEAR(result.fits[0].law.alpha.value, 0.1, 1e-6);
  EXPECT_NEAR(result.fits[2].law.alpha.value, 0.15, 1e-6);
  ASSERT_EQ(result.left_out.size(), 2u);
  EXPECT_EQ(result.left_out[0].find("dense over parameters without embeddings: "), 0u);
  ASSERT_EQ(result.against_dense.size(), 2u);
  EXPECT_EQ(result.against_dense[0].group, "low_rank");
  EXPECT_NEAR(result.against_dense[0].difference.value, 0.05, 1e-6);
}

TEST(FitScaledRuns, FitsAnOffsetFromFiveRunsOn) {
  const std::vector<ScaledRun> runs = runs_on_law("dense", 20, 0.1, 5);
  EXPECT_TRUE(fit_scaled_runs(runs, "auto", 0.95).fits[0].law.with_offset);
  EXPECT_FALSE(fit_scaled_runs(runs, "plain", 0.95).fits[0].law.with_offset);
  EXPECT_NE(error_of([] {
              fit_scaled_runs(runs_on_law("dense", 20, 0.1, 2), "auto", 0.95);
            }).find("takes 3 runs"),
            std::string::npos);
}

TEST(ScaleOutput, SaysTheSameInJsonAndOnAPage) {
  const testing::TemporaryFolder scratch;
  const ScaleStudy study;
  const ScaleResult result = fit_scaled_runs(runs_on_law("dense", 20, 0.1, 4), "plain", 0.95);
  const nlohmann::json out = scale_json(study, result);
  EXPECT_EQ(out["metric"], "validation_loss");
  EXPECT_EQ(out["runs"].size(), 4u);
  EXPECT_EQ(out["fits"][0]["x"], "training_flops");
  EXPECT_EQ(out["fits"][0]["alpha"]["value"], result.fits[0].law.alpha.value);
  EXPECT_EQ(out["slopes_against_dense"].size(), 0u);
  EXPECT_EQ(out["left_out"].size(), 1u);
  const auto page = write_scale_page(study, result, scratch / "page");
  EXPECT_EQ(page, scratch / "page" / "report.html");
  EXPECT_NE(read_file(page).find("Loss against training FLOPs"), std::string::npos);
}

TEST(ScaleRuns, RefusesWordsItDoesNotKnow) {
  ScaleStudy study;
  study.metric = "loss";
  EXPECT_NE(error_of([&] { scale_runs(study); }).find("--metric loss"), std::string::npos);
  study = {};
  study.confidence = 1;
  EXPECT_EQ(error_of([&] { scale_runs(study); }), "--confidence 1 must lie between 0 and 1");
}

}  // namespace scale_test
}  // namespace refract
