#include "studies/merge/merge.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "core/files.h"
#include "formats/checkpoint.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"
#include "studies/saved_models.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "support/tolerances.h"

namespace refract {
namespace merge_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::expect_close;
using testing::has;
using testing::save_small_model;
using testing::small_llama;

class Merge : public ::testing::Test {
 protected:
  Merge() {
    testing::save_shard(scratch_ / "tokens.bin", config_.vocab_size, 200);
    for (const char* name : {"a", "b", "base"}) {
      models_.push_back(save_small_model(scratch_ / name, config_, models_.size() + 1));
    }
    study_.models = {path("a"), path("b")};
    study_.out = path("out");
    study_.overrides = {"train.device=cpu"};
    study_.evaluation.corpus = {path("tokens.bin")};
    study_.evaluation.context = 12;
  }
  std::string path(const char* name) const { return scratch_.str(name); }
  std::string refusal() const {
    const std::string why = error_of([&] { merge_models(study_); });
    EXPECT_FALSE(fs::exists(study_.out)) << why;
    return why;
  }

  const testing::TemporaryFolder scratch_;
  const ModelConfig config_ = small_llama();
  std::vector<std::unique_ptr<Decoder>> models_;
  MergeStudy study_;
};

TEST_F(Merge, WritesAModelThatLoads) {
  study_.settings.weights = {1, 3};
  study_.dtype = at::kBFloat16;
  merge_models(study_);
  const LoadedModel merged = load_model(study_.out, {"train.device=cpu"});
  for (const Parameter& parameter : merged.model->arena().parameters()) {
    const auto of = [&](size_t i) {
      ParameterArena& arena = models_[i]->arena();
      return arena.value(arena.find(parameter.name));
    };
    const at::Tensor expected = (of(0) * 0.25 + of(1) * 0.75).to(at::kBFloat16).to(at::kFloat);
    EXPECT_TRUE(at::equal(merged.model->arena().value(&parameter), expected)) << parameter.name;
  }
  const auto record = nlohmann::json::parse(read_file(fs::path(study_.out) / "merge.json"));
  EXPECT_EQ(record["weight"], 0.75);
}

TEST_F(Merge, PointsEndAtTheModels) {
  study_.points = 3;
  study_.best = true;
  for (const char* method : {"linear", "slerp"}) {
    study_.settings.method = method;
    study_.out = path(method);
    const MergeResult result = merge_models(study_);
    ASSERT_EQ(result.points.size(), 3U);
    for (const size_t end : {0U, 1U}) {
      const double loss =
          evaluate_model(study_.models[end], study_.overrides, study_.evaluation).result.loss;
      EXPECT_NEAR(result.points[2 * end].loss, loss, 1e-6 * loss) << method;
    }
    const double written =
        evaluate_model(study_.out, study_.overrides, study_.evaluation).result.loss;
    for (const MergePoint& point : result.points) EXPECT_LE(written, point.loss * (1 + 1e-6));
    EXPECT_FALSE(fs::exists(fs::path(study_.out) / "candidate"));
  }
}

TEST_F(Merge, LambdaZeroIsTheBase) {
  study_.settings.method = "ties";
  study_.base = path("base");
  study_.points = 2;
  const MergeResult result = merge_models(study_);
  const double base = evaluate_model(study_.base, study_.overrides, study_.evaluation).result.loss;
  EXPECT_NEAR(result.points[0].loss, base, 1e-6 * base);
  EXPECT_EQ(result.written, 1);
  EXPECT_NE(result.points[1].loss, result.points[0].loss);
}

TEST_F(Merge, AGreedySoupIsNeverWorseThanItsBestModel) {
  study_.settings.method = "greedy_soup";
  study_.models.push_back(path("base"));
  const MergeResult result = merge_models(study_);
  ASSERT_EQ(result.losses.size(), 3U);
  const double best = *std::min_element(result.losses.begin(), result.losses.end());
  EXPECT_EQ(result.losses[result.chosen[0]], best);
  const double written =
      evaluate_model(study_.out, study_.overrides, study_.evaluation).result.loss;
  EXPECT_LE(written, best * (1 + 1e-6));
  EXPECT_NEAR(written, result.points[0].loss, 1e-6 * written);
}

TEST_F(Merge, RefusesWhatDoesNotGoTogether) {
  study_.settings.method = "slurp";
  EXPECT_TRUE(has(refusal(), "did you mean slerp"));
  study_.settings.method = "ties";
  EXPECT_TRUE(has(refusal(), "--base MODEL"));
  study_.settings.method = "slerp";
  study_.base = path("base");
  EXPECT_TRUE(has(refusal(), "--base goes with task vectors"));
  study_.base.clear();
  study_.models.push_back(path("base"));
  EXPECT_TRUE(has(refusal(), "two models, not 3"));
  study_.settings.method = "linear";
  study_.settings.weights = {1, 2};
  EXPECT_TRUE(has(refusal(), "2 numbers for 3 models"));
  study_.settings.weights = {0.1, 0.2, -0.3};  // not exactly 0
  EXPECT_TRUE(has(refusal(), "add up to 0"));
  study_.settings.weights.clear();
  study_.points = 3;
  EXPECT_TRUE(has(refusal(), "needs a path"));
  study_.points = 1'000'000'000'000;
  EXPECT_TRUE(has(refusal(), "at most 100000"));
  study_.points = 0;
  study_.best = true;
  EXPECT_TRUE(has(refusal(), "--points"));
}

TEST_F(Merge, TaskVectorsMayBeSubtracted) {
  study_.settings.method = "task_arithmetic";
  study_.base = path("base");
  study_.settings.weights = {1, -1};
  merge_models(study_);
  const LoadedModel merged = load_model(study_.out, {"train.device=cpu"});
  for (const Parameter& parameter : merged.model->arena().parameters()) {
    const auto of = [&](size_t i) {
      ParameterArena& arena = models_[i]->arena();
      return arena.value(arena.find(parameter.name));
    };
    const at::Tensor expected = of(2) + ((of(0) - of(2)) - (of(1) - of(2)));
    expect_close(merged.model->arena().value(&parameter), expected, parameter.name);
  }
}

TEST_F(Merge, RefusesDensitiesAndPlacesOutsideTheirRange) {
  study_.settings.method = "ties";
  study_.base = path("base");
  for (const double density : {0.0, -0.5, 1.5, std::numeric_limits<double>::quiet_NaN()}) {
    study_.settings.density = density;
    EXPECT_TRUE(has(refusal(), "must be in (0, 1]")) << density;
  }
  study_.settings = {};
  study_.settings.method = "ties";
  study_.settings.lambda = std::numeric_limits<double>::infinity();
  EXPECT_TRUE(has(refusal(), "--lambda inf"));
  study_.settings.lambda = 1;
  study_.settings.weights = {1, std::numeric_limits<double>::quiet_NaN()};
  EXPECT_TRUE(has(refusal(), "no finite number"));
  study_.settings = {};
  study_.settings.method = "slerp";
  study_.base.clear();
  for (const double t : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    study_.settings.t = t;
    EXPECT_TRUE(has(refusal(), "must be in [0, 1]")) << t;
  }
}

// Files whose config.json says the same, and whose tensors are not.
TEST_F(Merge, RefusesTensorsThatAreMissingOrOfAnotherShape) {
  const std::string norm = "model.norm.weight";
  const fs::path file = scratch_ / "b" / "model.safetensors";
  std::vector<TensorSource> without, other;
  {
    const SafetensorsFile whole(file);
    for (const TensorInfo& info : whole.tensors()) {
      const at::Tensor tensor = whole.tensor(info.name).clone();
      if (info.name != norm) without.push_back(source_of(info.name, tensor));
      other.push_back(source_of(info.name, info.name == norm ? tensor.slice(0, 1) : tensor));
    }
  }
  write_safetensors(file, without);
  const std::string missing = refusal();
  EXPECT_TRUE(has(missing, norm) && has(missing, "which the first model has")) << missing;
  std::swap(study_.models[0], study_.models[1]);
  EXPECT_TRUE(has(refusal(), "tensors that the first model does not have"));
  std::swap(study_.models[0], study_.models[1]);
  write_safetensors(file, other);
  const std::string shorter = refusal();
  EXPECT_TRUE(has(shorter, norm) && has(shorter, "in the first model")) << shorter;
}

// The first model's types, unless others are asked for; sums are fp32.
TEST_F(Merge, TypesMayDiffer) {
  SaveOptions half;
  half.dtype = at::kHalf;
  save_model(*models_[1], scratch_ / "half", half);
  study_.models = {path("half"), path("a")};
  merge_models(study_);
  const SafetensorsFile merged(fs::path(study_.out) / "model.safetensors");
  for (const Parameter& parameter : models_[0]->arena().parameters()) {
    const auto of = [&](size_t i) {
      ParameterArena& arena = models_[i]->arena();
      return arena.value(arena.find(parameter.name));
    };
    const at::Tensor expected =
        (of(1).to(at::kHalf).to(at::kFloat) * 0.5 + of(0) * 0.5).to(at::kHalf);
    EXPECT_TRUE(at::equal(merged.tensor(parameter.name), expected)) << parameter.name;
  }
}

TEST_F(Merge, RefusesOtherArchitectures) {
  ModelConfig wide = small_llama();
  wide.intermediate_size *= 2;
  save_small_model(scratch_ / "wide", wide, 4);
  study_.models[1] = path("wide");
  EXPECT_TRUE(has(refusal(), "intermediate_size"));
}

}  // namespace merge_test
}  // namespace refract
