#include "train/trainer.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <csignal>

#include "support/errors.h"
#include "support/file_size_limit.h"
#include "support/training.h"

namespace refract {
namespace trainer_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::has;

class LossKeeper : public Observer {
 public:
  void on_log(const LogPoint& point) override { losses.push_back(point.loss); }
  std::vector<double> losses;
};

TEST(Trainer, Learns) {
  RunConfig config = tiny_config("learns");
  config.train.steps = 200;
  LossKeeper keeper;
  TinyRun run(config, &keeper);
  const RunResult result = run.trainer->run();
  EXPECT_TRUE(result.finished);
  EXPECT_GT(keeper.losses.front(), 2.5);  // ln 16 = 2.77
  // The stream's entropy is 0.8125 log(1/0.8125) + ... = 1.03 nats; a model that learned the rule
  // comes near.
  EXPECT_LT(result.evaluation->loss, 1.35);
  EXPECT_EQ(result.evaluation->tokens, 1999);
}

// Runs to the end, interrupted after every checkpoint by throwing everything away but the run
// folder.
void expect_resumes_bit_identically(RunConfig config) {
  config.checkpoint.every = 0;
  TinyRun whole(config);
  whole.trainer->run();

  fs::remove_all(config.run.dir);
  for (int64_t stop : {5, 9, 12}) {
    RunConfig part = config;
    part.checkpoint.permanent = {stop};
    TinyRun run(part);
    run.trainer->resume();
    // A run of which only the checkpoint at `stop` survives, as if it had been killed later.
    run.trainer->run();
    Checkpoints checkpoints(part.run.dir);
    for (int64_t step : checkpoints.steps()) {
      if (step > stop) fs::remove_all(checkpoints.path(step));
    }
  }
  TinyRun resumed(config);
  ASSERT_EQ(resumed.trainer->resume(), 12);
  EXPECT_TRUE(at::equal(whole.model->arena().master(), resumed.model->arena().master()));
  EXPECT_TRUE(at::equal(whole.model->arena().compute(), resumed.model->arena().compute()));
}

TEST(Trainer, ResumesBitIdentically) { expect_resumes_bit_identically(tiny_config("resume")); }

TEST(Trainer, ResumesBitIdenticallyWithDropoutAndMicroBatchesInHalfPrecision) {
  RunConfig config = tiny_config("resume_bf16");
  config.train.precision = "bf16";
  config.train.micro_batch = 2;
  config.model.dropout = 0.1;
  config.model.attention_dropout = 0.1;
  expect_resumes_bit_identically(config);
}

TEST(Trainer, ResumesBitIdenticallyOnRandomWindows) {
  RunConfig config = tiny_config("resume_random");
  TinyRun permuted(config);
  permuted.trainer->run();
  config.data.sampling = "random";
  expect_resumes_bit_identically(config);
  TinyRun again(config);
  again.trainer->resume();
  EXPECT_FALSE(at::equal(again.model->arena().master(), permuted.model->arena().master()));
}

RunConfig sgd_config(const std::string& name) {
  RunConfig config = tiny_config(name);
  config.optimizer.name = "sgd";
  config.optimizer.lr = 0.1;
  config.optimizer.weight_decay = 5e-4;
  return config;
}

TEST(Trainer, ResumesBitIdenticallyWithMomentum) {
  RunConfig config = sgd_config("resume_sgd");
  config.train.precision = "bf16";
  config.train.micro_batch = 2;
  config.optimizer.nesterov = true;
  expect_resumes_bit_identically(config);
}

TEST(Trainer, LearnsWithMomentum) {
  RunConfig config = sgd_config("learns_sgd");
  config.train.steps = 200;
  TinyRun run(config);
  EXPECT_LT(run.trainer->run().evaluation->loss, 1.6);  // of 2.77 at the start; the least is 1.03
}

RunConfig muon_config(const std::string& name) {
  RunConfig config = tiny_config(name);
  config.optimizer.name = "muon";
  config.optimizer.momentum = 0.95;
  config.optimizer.nesterov = true;
  return config;
}

TEST(Trainer, ResumesBitIdenticallyWithMuon) {
  RunConfig config = muon_config("resume_muon");
  config.train.precision = "bf16";
  config.train.micro_batch = 2;
  expect_resumes_bit_identically(config);
}

TEST(Trainer, LearnsWithMuon) {
  RunConfig config = muon_config("learns_muon");
  config.train.steps = 200;
  TinyRun run(config);
  EXPECT_LT(run.trainer->run().evaluation->loss, 1.35);  // as with AdamW at the same rate
}

TEST(Trainer, AnotherOptimizersStateIsRefused) {
  const RunConfig momentum = sgd_config("other_optimizer");
  TinyRun(momentum).trainer->run(5);
  RunConfig adam = momentum;
  adam.optimizer.name = "adamw";
  TinyRun other(adam);
  EXPECT_TRUE(has(error_of([&] { other.trainer->resume(); }), "another optimizer"));
}

// Three steps whole and cut into micro-batches end at the same weights, to rounding.
void expect_cut_equals_whole(RunConfig config, int64_t micro_batch) {
  config.train.steps = 3;
  TinyRun whole(config);
  whole.trainer->run();
  config.train.micro_batch = micro_batch;
  fs::remove_all(config.run.dir);
  TinyRun cut(config);
  cut.trainer->run();
  const at::Tensor a = whole.model->arena().master(), b = cut.model->arena().master();
  EXPECT_GT(a.norm().item<double>(), 0);
  EXPECT_LT(a.sub(b).norm().item<double>() / a.norm().item<double>(), 1e-5);
}

TEST(Trainer, MicroBatchesAddUpToTheBatch) { expect_cut_equals_whole(tiny_config("micro"), 1); }

TEST(Trainer, DropoutDrawsTheSameForAnyMicroBatch) {
  RunConfig config = tiny_config("micro_dropout");
  config.model.dropout = 0.2;
  expect_cut_equals_whole(config, 2);
}

TEST(Trainer, NonFiniteLossStopsBeforeTheStep) {
  RunConfig config = tiny_config("nan");
  config.checkpoint.every = 3;
  TinyRun run(config);
  run.trainer->run();
  fs::remove_all(fs::path(config.run.dir) / "checkpoints" / "step-00000012");
  RunConfig again = config;
  TinyRun broken(again);
  ASSERT_EQ(broken.trainer->resume(), 9);
  broken.model->arena().value(broken.model->arena().find("model.norm.weight")).fill_(std::nan(""));
  const at::Tensor before = broken.model->arena().master().clone();
  const std::string text = error_of([&] { broken.trainer->run(); });
  EXPECT_TRUE(has(text, "not finite in step 10 (sequences 36 to 39"));
  EXPECT_TRUE(has(text, "step-00000009"));
  EXPECT_TRUE(before.allclose(broken.model->arena().master(), 0, 0, /*equal_nan=*/true));
  EXPECT_EQ(*Checkpoints(config.run.dir).newest(), 9);  // nothing newer was written
}

TEST(Trainer, FullDiskLosesNothing) {
  RunConfig config = tiny_config("full");
  config.train.steps = 4;
  config.checkpoint.every = 2;
  {
    TinyRun run(config);
    run.trainer->run();
  }
  const Checkpoints checkpoints(config.run.dir);
  ASSERT_EQ(checkpoints.steps(), (std::vector<int64_t>{2, 4}));
  config.train.steps = 6;
  TinyRun run(config);
  run.trainer->resume();
  const std::string text = error_of([&] {
    const testing::FileSizeLimit limit(16384);
    run.trainer->run();
  });
  EXPECT_TRUE(has(text, "can't save the checkpoint"));
  EXPECT_TRUE(has(text, "File too large"));
  EXPECT_EQ(checkpoints.steps(), (std::vector<int64_t>{2, 4}));
  EXPECT_EQ(std::distance(fs::directory_iterator(fs::path(config.run.dir) / "checkpoints"), {}), 2);
}

TEST(Trainer, SignalSavesAndStops) {
  class Interrupter : public Observer {
   public:
    void on_step(int64_t step) override {
      if (step == 5) std::raise(SIGTERM);
    }
  } interrupter;
  const RunConfig config = tiny_config("signal");
  TinyRun run(config, &interrupter);
  const RunResult result = run.trainer->run();
  EXPECT_FALSE(result.finished);
  EXPECT_EQ(result.signal, SIGTERM);
  EXPECT_EQ(Checkpoints(config.run.dir).newest(), 5);
}

// A run of 12 steps that leaves a checkpoint at 5, and one that branches off there.
at::Tensor branched(const std::string& name, const std::function<void(RunConfig&)>& change) {
  RunConfig trunk = tiny_config(name + "_trunk");
  trunk.checkpoint.permanent = {5};
  TinyRun first(trunk);
  first.trainer->run(5);
  EXPECT_EQ(first.trainer->position(), 5);
  RunConfig copy = tiny_config(name + "_copy");
  change(copy);
  TinyRun second(copy);
  second.trainer->branch(Checkpoints(trunk.run.dir), 5);
  const RunResult result = second.trainer->run();
  EXPECT_TRUE(result.finished);
  EXPECT_EQ(result.step, 12);
  return second.model->arena().master().clone();
}

TEST(Trainer, ABranchUnderTheTrunksSeedsIsTheTrunk) {
  TinyRun whole(tiny_config("unbranched"));
  whole.trainer->run();
  EXPECT_TRUE(at::equal(branched("same", [](RunConfig&) {}), whole.model->arena().master()));
}

TEST(Trainer, BranchesUnderOtherSeedsPart) {
  const auto order = [](RunConfig& config) { config.data.order_seed = 77; };
  const auto noise = [](RunConfig& config) { config.run.noise_seed = 77; };
  const at::Tensor same = branched("own", [](RunConfig&) {});
  const at::Tensor other = branched("other", order);
  EXPECT_FALSE(at::equal(other, same));
  EXPECT_TRUE(at::equal(branched("other_again", order), other));
  EXPECT_TRUE(at::equal(branched("no_noise_in_it", noise), same));
  const auto dropout = [](RunConfig& config) { config.model.dropout = 0.2; };
  EXPECT_FALSE(at::equal(branched("noisy", [&](RunConfig& c) { dropout(c), noise(c); }),
                         branched("less_noisy", dropout)));
}

TEST(Trainer, ResumingUnderAnotherOrderIsRefused) {
  RunConfig config = tiny_config("another_order");
  TinyRun(config).trainer->run(5);
  config.data.order_seed = 9;
  TinyRun other(config);
  EXPECT_TRUE(has(error_of([&] { other.trainer->resume(); }), "data.order_seed = 1, not 9"));
}

}  // namespace trainer_test
}  // namespace refract
