#include "studies/interpolate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "analysis/weights.h"
#include "core/files.h"
#include "studies/saved_models.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace interpolate_test {

using nlohmann::json;
using testing::error_of;
using testing::save_small_model;
using testing::small_llama;

// Two models and a corpus in a folder.
class Interpolate : public ::testing::Test {
 protected:
  Interpolate() {
    tokens_ = testing::save_shard(scratch_ / "tokens.bin", config_.vocab_size, 300);
    for (uint64_t seed : {1, 2}) models_.push_back(add_model(seed));
    study_.data = {(scratch_ / "tokens.bin").string()};
    study_.overrides = {"train.device=cpu"};
    study_.alphas = 3;
    study_.engine = "single";
    study_.out = (scratch_ / "out").string();
  }
  std::unique_ptr<Decoder> add_model(uint64_t seed) {
    const std::filesystem::path folder = scratch_ / fmt::format("model-{}", seed);
    study_.models.push_back(folder.string());
    return save_small_model(folder, config_, seed);
  }
  double loss_of(Decoder& model) const {
    return evaluate(model, *tokens_, config_.max_position_embeddings).loss;
  }

  const testing::TemporaryFolder scratch_;
  const ModelConfig config_ = small_llama();
  std::shared_ptr<TokenStream> tokens_;
  std::vector<std::unique_ptr<Decoder>> models_;
  InterpolateStudy study_;
};

TEST_F(Interpolate, EvaluatesTheModelsAndWhatLiesBetween) {
  const InterpolateResult result = interpolate_models(study_);
  EXPECT_EQ(result.folders, study_.models);
  EXPECT_FALSE(result.plane.has_value());
  EXPECT_EQ(result.path.alphas, (std::vector<double>{0, 0.5, 1}));
  ASSERT_EQ(result.path.splits.size(), 1u);
  const std::vector<double> losses = result.path.splits[0].losses();
  EXPECT_EQ(losses[0], loss_of(*models_[1]));
  EXPECT_EQ(losses[2], loss_of(*models_[0]));
  const std::vector<Weights> ends = {weights_of(*models_[0]), weights_of(*models_[1])};
  set_weights(*models_[0], combine(ends, std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(losses[1], loss_of(*models_[0]));
  EXPECT_EQ(result.path.splits[0].points[1].tokens, 299);
  const double mean = (losses[0] + losses[2]) / 2;
  EXPECT_DOUBLE_EQ(result.path.loss_barrier(0).instability,
                   std::max({losses[0], losses[1], losses[2]}) - mean);
  EXPECT_GT(result.path.geometry.distance, 0);
}

TEST_F(Interpolate, WritesWhatItFound) {
  study_.batches = "2";
  const InterpolateResult result = interpolate_models(study_);
  // Two batches of train.batch = 32 windows hold more than there is: all whole windows of it.
  EXPECT_EQ(result.path.splits[0].points[0].tokens, 299);
  const json out = interpolate_json(study_, result);
  EXPECT_EQ(out["a"], study_.models[0]);
  EXPECT_EQ(out["b"], study_.models[1]);
  EXPECT_EQ(out["batches"], "2");
  EXPECT_EQ(out["align"], "none");
  EXPECT_EQ(out["buffers"], "interpolate");
  EXPECT_EQ(out["engine"], "single");
  EXPECT_GT(out["seconds"], 0);
  EXPECT_EQ(out["splits"]["data"]["loss"].size(), 3u);
  EXPECT_EQ(json::parse(read_file(scratch_ / "out/path.json")), out);
  const std::string csv = read_file(scratch_ / "out/path.csv");
  EXPECT_EQ(std::count(csv.begin(), csv.end(), '\n'), 4);  // a header and three points
  EXPECT_TRUE(std::filesystem::exists(scratch_ / "out/report.html"));
}

TEST_F(Interpolate, EveryEngineFindsTheSameLosses) {
  const std::vector<double> single = interpolate_models(study_).path.splits[0].losses();
  for (const char* engine : {"batched", "prefixes"}) {
    study_.engine = engine;
    const PathResult path = interpolate_models(study_).path;
    EXPECT_EQ(path.engine, engine);
    // Sums of products in another order, in fp32.
    EXPECT_NEAR(path.splits[0].losses()[1], single[1], 1e-5 * single[1]) << engine;
    EXPECT_EQ(path.splits[0].losses()[0], single[0]) << engine;
  }
}

TEST_F(Interpolate, EvaluatesAPlaneThroughThreeModels) {
  models_.push_back(add_model(3));
  study_.plane = 2;
  const InterpolateResult result = interpolate_models(study_);
  ASSERT_TRUE(result.plane.has_value());
  EXPECT_EQ(result.plane->names, study_.models);
  ASSERT_EQ(result.plane->splits.size(), 1u);
  ASSERT_EQ(result.plane->splits[0].points.size(), 3u + 2 * 2);
  for (size_t i = 0; i < 3; ++i)
    EXPECT_EQ(result.plane->splits[0].points[i].loss, loss_of(*models_[i])) << i;
  EXPECT_EQ(interpolate_json(study_, result), json::parse(read_file(scratch_ / "out/plane.json")));
}

TEST_F(Interpolate, RefusesBeforeItComputes) {
  const auto refused = [&](auto change) {
    InterpolateStudy study = study_;
    change(study);
    return error_of([&] { interpolate_models(study); });
  };
  EXPECT_EQ(refused([](auto& s) { s.alphas = 1; }),
            "--alphas 1 is too few: a path has at least its two ends");
  EXPECT_EQ(refused([](auto& s) { s.engine = "batch"; }),
            "--engine batch is not one of auto, batched, prefixes, single; did you mean batched?");
  EXPECT_EQ(refused([](auto& s) { s.plane = 2; }),
            "--plane N takes three models; without it two are compared; 2 are given");
  EXPECT_EQ(refused([](auto& s) { s.out = ""; }), "--out: can't make the folder ''");
  EXPECT_FALSE(std::filesystem::exists(scratch_ / "out/path.json"));
}

TEST_F(Interpolate, RefusesModelsOfOtherShapes) {
  ModelConfig other = config_;
  other.num_hidden_layers = 1;
  save_small_model(scratch_ / "other", other, 1);
  study_.models[1] = (scratch_ / "other").string();
  const std::string error = error_of([&] { interpolate_models(study_); });
  EXPECT_NE(error.find("there is no path between"), std::string::npos) << error;
  EXPECT_NE(error.find("model.num_hidden_layers is 2 in the first and 1 in the second"),
            std::string::npos)
      << error;
}

}  // namespace interpolate_test
}  // namespace refract
