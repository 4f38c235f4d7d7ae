// Self-guided training: the plan of its steps, exact starts, resuming in every phase, and that
// guides leave nothing behind.
#include "train/self_guided.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/safetensors.h"
#include "support/training.h"
#include "transforms/guided.h"

namespace refract {
namespace self_guided_test {

namespace fs = std::filesystem;
using nlohmann::json;

std::string rules(const std::string& kind) {
  return json::array({{{"match", R"(model\.layers\.1\.mlp\..*)"}, {"kind", kind}}}).dump();
}

RunConfig guided_config(const std::string& name, const std::string& mode = "fixedflop") {
  RunConfig config = tiny_config("guided_" + name);
  config.transform = rules("low_rank");
  config.self_guided.mode = mode;
  config.self_guided.ratio = 0.5;
  config.log.every = 1;
  return config;  // 12 steps on fresh data, 6 of them guided
}

class LossKeeper : public Observer {
 public:
  void on_log(const LogPoint& point) override {
    losses.push_back(point.loss);
    guided_shares.push_back(point.guided_share);
  }
  std::vector<double> losses, guided_shares;
};

TEST(SelfGuidedPlan, SharesFallFromOneToZero) {
  RunConfig config = guided_config("plan");
  const SelfGuidedPlan cosine(config, 100);
  EXPECT_EQ(cosine.guided_steps(), 50);
  EXPECT_EQ(cosine.total_steps(), 150);
  EXPECT_EQ(cosine.alpha(0), 1);
  EXPECT_NEAR(cosine.alpha(25), 0.5, 1e-12);
  EXPECT_EQ(cosine.alpha(50), 0);
  EXPECT_TRUE(cosine.guided(49));
  EXPECT_FALSE(cosine.guided(50));
  EXPECT_EQ(cosine.data_step(99), 99);
  EXPECT_EQ(cosine.data_step(100), 0);
  EXPECT_EQ(cosine.data_step(149), 49);
  config.self_guided.schedule = "linear";
  config.self_guided.mode = "fixedstep";
  const SelfGuidedPlan linear(config, 100);
  EXPECT_NEAR(linear.alpha(10), 0.8, 1e-12);
  EXPECT_EQ(linear.total_steps(), 100);
  config.self_guided.ratio = 0.001;
  EXPECT_THROW(SelfGuidedPlan(config, 100), Error);
  config.self_guided.mode = "none";
  EXPECT_EQ(SelfGuidedPlan(config, 100).guided_steps(), 0);
}

TEST(SelfGuidedPlan, ReducedFlopsGuideWithTheProbabilityOfTheShare) {
  RunConfig config = guided_config("draws");
  config.self_guided.reduce_flop = true;
  const SelfGuidedPlan plan(config, 20000);
  EXPECT_TRUE(plan.guided(0));
  // Half of 10,000 draws with mean shares of 1/2: a standard deviation of at most 50.
  EXPECT_NEAR(static_cast<double>(plan.count_guided()), 5000, 200);
  int64_t late = 0;
  for (int64_t step = 9000; step < 10000; ++step) late += plan.guided(step) ? 1 : 0;
  EXPECT_LT(late, 40);  // the mean share of the last tenth is 0.8%
  config.run.seed += 1;
  const SelfGuidedPlan other(config, 20000);
  int64_t different = 0;
  for (int64_t step = 0; step < 10000; ++step) different += plan.guided(step) != other.guided(step);
  EXPECT_GT(different, 1000);
}

TEST(SelfGuided, TheFirstOutputIsTheStructuredOne) {
  for (const std::string& kind : guided_kinds()) {
    ModelConfig model = tiny_config("first").model;
    resolve(model, 16, 8);
    const auto decoder = build_model(model, rules(kind), "the test", true).decoder;
    decoder->allocate(at::kCPU, at::kDouble, at::kDouble);
    decoder->initialize(3);
    EXPECT_EQ(decoder->arena().guides().size(), 2u);
    const at::Tensor tokens = at::ones({2, 8}, at::kLong);
    const at::Tensor plain = decoder->hidden({}, tokens);
    for (const double share : {1.0, 0.3}) {
      decoder->set_guide(at::ones({1}, at::kFloat).mul(share));
      EXPECT_LT((decoder->hidden({}, tokens) - plain).abs().max().item<double>(), 1e-10) << kind;
    }
    // And it is the guide that speaks: without it the output is another.
    for (const Parameter& guide : decoder->arena().guides()) {
      decoder->arena().value(&guide).mul_(2);
    }
    EXPECT_GT((decoder->hidden({}, tokens) - plain).abs().max().item<double>(), 1e-4) << kind;
  }
}

// The factors' gradients, in float64, with the guide's share a.
std::vector<at::Tensor> factor_gradients(const std::string& kind, at::ScalarType compute,
                                         double share) {
  ModelConfig model = tiny_config("share").model;
  resolve(model, 16, 8);
  const auto decoder = build_model(model, rules(kind), "the test", true).decoder;
  decoder->allocate(at::kCPU, compute);
  decoder->initialize(3);
  decoder->set_guide(at::full({1}, share, at::kFloat));
  ForwardContext context;
  context.training = true;
  context.clock = at::zeros({2}, at::kLong);
  const at::Tensor tokens = at::arange(16, at::kLong).view({2, 8});
  decoder->loss(context, tokens, tokens.flip(1).contiguous()).sum.backward();
  std::vector<at::Tensor> gradients;
  for (const Parameter& p : decoder->arena().parameters()) {
    if (p.name.ends_with(".U.weight") || p.name.ends_with(".V.weight"))
      gradients.push_back(decoder->arena().gradient(&p).to(at::kDouble));
  }
  return gradients;
}

// In the first 2.8% of the guided steps the share rounds to 1 in bfloat16.
TEST(SelfGuided, FactorsLearnFromTheStartInHalfPrecision) {
  for (const std::string& kind : guided_kinds()) {
    for (const double share : {0.999, 0.9999}) {
      const auto half = factor_gradients(kind, at::kBFloat16, share);
      const auto exact = factor_gradients(kind, at::kFloat, share);
      ASSERT_FALSE(exact.empty());
      for (size_t i = 0; i < exact.size(); ++i) {
        const double norm = exact[i].norm().item<double>();
        ASSERT_GT(norm, 0) << kind;
        // Roundings of 2^-9 along the network, far from all of the gradient.
        EXPECT_LT(half[i].sub(exact[i]).norm().item<double>(), 0.05 * norm) << kind << " " << i;
      }
    }
  }
}

// With a learning rate of 0 the loss of a step is a function of its data alone.
TEST(SelfGuided, FixedFlopRepeatsTheDataOfItsFirstSteps) {
  RunConfig config = guided_config("repeat");
  config.optimizer.lr = 0;
  LossKeeper keeper;
  TinyRun run(config, &keeper);
  EXPECT_EQ(run.trainer->run().step, 18);
  ASSERT_EQ(keeper.losses.size(), 18u);
  for (size_t step = 0; step < 6; ++step) {
    EXPECT_NEAR(keeper.losses[12 + step], keeper.losses[step], 1e-5);
    EXPECT_GT(std::abs(keeper.losses[12 + step] - keeper.losses[6 + step]), 1e-4);
  }
}

// What a step costs depends on it, and with that the utilization of the device.
TEST(SelfGuided, LogPointsSayWhichShareOfTheirStepsWasGuided) {
  RunConfig config = guided_config("share");
  config.train.steps = 24;  // 12 of them in the guided phase
  config.self_guided.reduce_flop = true;
  config.log.every = 4;
  LossKeeper keeper;
  TinyRun run(config, &keeper);
  run.trainer->run();
  const SelfGuidedPlan plan(config, 24);
  EXPECT_LT(plan.count_guided(), 12);
  ASSERT_EQ(keeper.guided_shares.size(), 9u);
  for (int64_t point = 0; point < 9; ++point) {
    int64_t guided = 0;
    for (int64_t step = 4 * point; step < 4 * point + 4; ++step)
      guided += plan.guided(step) ? 1 : 0;
    EXPECT_EQ(keeper.guided_shares[static_cast<size_t>(point)], static_cast<double>(guided) / 4);
  }
}

void expect_resumes_bit_identically(const RunConfig& config, const std::vector<int64_t>& stops) {
  TinyRun whole(config);
  whole.trainer->run();
  fs::remove_all(config.run.dir);
  const Checkpoints checkpoints(config.run.dir);
  for (const int64_t stop : stops) {
    RunConfig part = config;
    part.checkpoint.permanent = {stop};
    TinyRun run(part);
    run.trainer->resume();
    run.trainer->run();
    for (const int64_t step : checkpoints.steps()) {
      if (step > stop) fs::remove_all(checkpoints.path(step));
    }
  }
  TinyRun resumed(config);
  ASSERT_EQ(resumed.trainer->resume(), stops.back());
  resumed.trainer->run();
  EXPECT_TRUE(at::equal(whole.model->arena().master(), resumed.model->arena().master()));
  EXPECT_TRUE(at::equal(whole.model->arena().compute(), resumed.model->arena().compute()));
}

// Inside the guided steps, at their end, in the plain ones, at the repeat's start and inside it.
TEST(SelfGuided, ResumesBitIdenticallyInEveryPhase) {
  for (const std::string& kind : guided_kinds()) {
    for (const char* mode : {"fixedstep", "fixedflop"}) {
      SCOPED_TRACE(kind + " " + mode);
      RunConfig config = guided_config("resume_" + kind + mode, mode);
      config.transform = rules(kind);
      config.self_guided.reduce_flop = true;
      const bool repeats = config.self_guided.mode == "fixedflop";
      expect_resumes_bit_identically(
          config, repeats ? std::vector<int64_t>{2, 6, 8, 12, 15} : std::vector<int64_t>{2, 6, 8});
    }
  }
}

TEST(SelfGuided, ResumesBitIdenticallyInHalfPrecisionWithMicroBatches) {
  RunConfig config = guided_config("resume_bf16");
  config.train.precision = "bf16";
  config.train.micro_batch = 2;
  config.model.dropout = 0.1;
  expect_resumes_bit_identically(config, {3, 6, 13});
}

TEST(SelfGuided, MicroBatchesAddUpToTheBatch) {
  RunConfig config = guided_config("micro");
  config.train.steps = 4;
  TinyRun whole(config);
  whole.trainer->run();
  fs::remove_all(config.run.dir);
  config.train.micro_batch = 1;
  TinyRun cut(config);
  cut.trainer->run();
  const at::Tensor a = whole.model->arena().master(), b = cut.model->arena().master();
  EXPECT_LT(a.sub(b).norm().item<double>() / a.norm().item<double>(), 1e-5);
}

std::vector<std::string> names(const fs::path& file) {
  std::vector<std::string> all;
  const SafetensorsFile saved(file);  // its tensors live as long as it does
  for (const TensorInfo& info : saved.tensors()) all.push_back(info.name);
  return all;
}

bool holds(const std::vector<std::string>& all, const std::string& part) {
  return std::any_of(all.begin(), all.end(),
                     [&](const std::string& name) { return name.find(part) != std::string::npos; });
}

TEST(SelfGuided, GuidesLeaveMemoryAndCheckpointsWithTheirPhase) {
  RunConfig config = guided_config("memory");
  config.checkpoint.permanent = {3, 6, 9};
  RunConfig without = config;
  without.self_guided.mode = "none";
  TinyRun guided(config), plain(without);
  ParameterArena& arena = guided.model->arena();
  EXPECT_EQ(arena.count(), plain.model->arena().count());
  EXPECT_EQ(arena.grads().numel() - arena.core_size(), 2 * 32 * 128);
  guided.trainer->run();
  EXPECT_EQ(arena.master().numel(), plain.model->arena().master().numel());
  EXPECT_EQ(arena.grads().numel(), plain.model->arena().grads().numel());
  EXPECT_EQ(arena.layout(), plain.model->arena().layout());
  const Checkpoints checkpoints(config.run.dir);
  for (const int64_t step : {3, 6, 9, 18}) {
    const fs::path folder = checkpoints.path(step);
    EXPECT_FALSE(holds(names(folder / "model.safetensors"), "guide")) << step;
    EXPECT_EQ(holds(names(folder / "train_state.safetensors"), "guides"), step == 3) << step;
  }
}

// Steps that leave the guides out leave them as they are, and so their moments; the others move
// them.
TEST(SelfGuided, StepsWithoutGuidesLeaveThemAlone) {
  RunConfig config = guided_config("alone");
  config.self_guided.reduce_flop = true;
  config.train.steps = 40;
  resolve(config.model, 16, config.data.context);
  const auto model = build_model(config.model, config.transform, "the test", true).decoder;
  model->allocate(at::kCPU, at::kFloat);
  model->initialize(1);
  TrainStep step(*model, config, tiny_stream(), config.train.steps);
  ParameterArena& arena = model->arena();
  const auto all_of_guides = [&] {
    const auto part = [&](const at::Tensor& flat) {
      return flat.slice(0, arena.core_size(), arena.trainable_size()).clone();
    };
    return std::vector<at::Tensor>{part(arena.master()), part(step.state().exp_avg),
                                   part(step.state().exp_avg_sq)};
  };
  int64_t left_alone = 0;
  for (int64_t i = 0; i < step.plan().guided_steps(); ++i) {
    const auto before = all_of_guides();
    step.run(i, i * config.train.batch);
    const auto after = all_of_guides();
    for (size_t t = 0; t < before.size(); ++t) {
      EXPECT_EQ(at::equal(before[t], after[t]), !step.plan().guided(i)) << i;
    }
    left_alone += step.plan().guided(i) ? 0 : 1;
  }
  EXPECT_GT(left_alone, 0);
}

TEST(SelfGuided, ModelsWithoutStructuredLayersAreRefused) {
  ModelConfig model = tiny_config("refused").model;
  resolve(model, 16, 8);
  EXPECT_THROW(build_model(model, "", "the test", true), Error);
  EXPECT_THROW(build_model(model, rules("lora"), "the test", true), Error);
}

}  // namespace self_guided_test
}  // namespace refract
