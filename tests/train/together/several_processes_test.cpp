// A run that several processes train together: the same bits for any number of them.
#include "support/several_processes.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include <map>
#include <utility>

#include "core/files.h"
#include "support/errors.h"
#include "support/training.h"

namespace refract {
namespace several_processes_test {

namespace fs = std::filesystem;
using testing::can_run_several;
using testing::has;
using testing::in_processes;
using testing::usage_error_of;

// Trains up to a step in so many processes, and goes on from there in the next entry's number.
using Parts = std::vector<std::pair<int64_t, int64_t>>;
using Files = std::map<std::string, std::string>;

// The files of the run's last checkpoint.
Files checkpoint_after(const RunConfig& config, const Parts& parts) {
  fs::remove_all(config.run.dir);
  for (const auto& [until, processes] : parts) {
    in_processes(processes, [&, until = until](World& world) {
      TinyRun run(config, nullptr, at::kCPU, &world);
      run.trainer->resume();
      run.trainer->run(until);
    });
  }
  Files files;
  const Checkpoints checkpoints(config.run.dir);
  const fs::path newest = checkpoints.path(checkpoints.newest().value());
  for (const auto& entry : fs::directory_iterator(newest))
    files[entry.path().filename().string()] = read_file(entry.path());
  return files;
}

void expect_equal(const Files& a, const Files& b, const std::string& what) {
  ASSERT_EQ(a.size(), b.size()) << what;
  EXPECT_TRUE(a.contains("train_state.safetensors"));
  for (const auto& [name, bytes] : a) EXPECT_TRUE(b.at(name) == bytes) << what << ": " << name;
}

RunConfig grouped(const std::string& name) {
  RunConfig config = tiny_config("several_" + name);
  config.train.batch = 8;
  config.train.reduction_groups = 4;
  config.train.steps = 200;
  return config;
}

RunConfig dense() { return grouped("dense"); }

RunConfig dropout_in_half_precision() {
  RunConfig config = grouped("dropout");
  config.train.precision = "bf16";
  config.train.batch = 4;
  config.train.micro_batch = 1;
  config.model.dropout = 0.1;
  config.model.attention_dropout = 0.1;
  return config;
}

RunConfig optical_with_noise() {
  RunConfig config = grouped("optical");
  config.train.batch = 4;
  config.train.micro_batch = 1;
  config.transform =
      R"([{"match": "model\\.layers\\.\\d+\\.(self_attn|mlp)(\\.\\w+_proj)?", "kind": "optical"}])";
  return config;
}

RunConfig spiking() {
  RunConfig config = grouped("spiking");
  config.train.batch = 4;
  config.train.micro_batch = 1;
  config.train.steps = 80;
  config.transform =
      R"([{"match": "model\\.layers\\.\\d+\\.(self_attn|mlp)(\\.\\w+_proj)?", "kind": "spiking"}])";
  return config;
}

RunConfig self_guided() {
  RunConfig config = grouped("guided");
  config.transform =
      R"([{"match": "model\\.layers\\.1\\.mlp\\..*", "kind": "block_shuffle", "blocks": 2}])";
  config.train.steps = 140;
  config.self_guided.mode = "fixedflop";
  config.self_guided.ratio = 0.5;
  config.self_guided.reduce_flop = true;
  return config;
}

RunConfig shortened(RunConfig config) {
  config.train.steps = config.train.steps / 4;
  return config;
}

class SameBits : public ::testing::TestWithParam<RunConfig (*)()> {
 protected:
  void SetUp() override {
    if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  }
};

TEST_P(SameBits, InOneTwoAndFourProcesses) {
  const RunConfig config = GetParam()();
  const Files one = checkpoint_after(config, {{1000, 1}});
  for (const int64_t processes : {2, 4})
    expect_equal(one, checkpoint_after(config, {{1000, processes}}), std::to_string(processes));
}

TEST_P(SameBits, ResumedInAnotherNumberOfProcesses) {
  const RunConfig config = shortened(GetParam()());
  const Files one = checkpoint_after(config, {{1000, 1}});
  expect_equal(one, checkpoint_after(config, {{10, 4}, {25, 1}, {1000, 2}}), "4, 1, 2");
}

INSTANTIATE_TEST_SUITE_P(Of, SameBits,
                         ::testing::Values(&dense, &dropout_in_half_precision, &optical_with_noise,
                                           &spiking, &self_guided));

// The moments are divided, and a checkpoint does not show it.
TEST_P(SameBits, WithDividedMoments) {
  RunConfig config = shortened(GetParam()());
  Files one = checkpoint_after(config, {{1000, 1}});
  config.train.shard = "optimizer";
  Files divided = checkpoint_after(config, {{10, 2}, {25, 1}, {1000, 4}});
  EXPECT_NE(one.at("config.toml"), divided.at("config.toml"));
  divided["config.toml"] = one["config.toml"];
  expect_equal(one, divided, "divided among 2, 1, 4");
}

// Slices cut muon's matrices, and the guides'.
TEST(SeveralProcesses, MuonWithDividedMoments) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  for (RunConfig config : {dense(), dropout_in_half_precision(), self_guided()}) {
    config.train.steps = 30;
    config.optimizer.name = "muon";
    config.optimizer.momentum = 0.95;
    config.optimizer.nesterov = true;
    const Files one = checkpoint_after(config, {{1000, 1}});
    config.train.shard = "optimizer";
    const std::vector<Parts> all = {{{1000, 2}}, {{1000, 4}}, {{10, 4}, {20, 1}, {1000, 2}}};
    for (const Parts& parts : all) {
      Files divided = checkpoint_after(config, parts);
      divided["config.toml"] = one.at("config.toml");
      expect_equal(one, divided, config.run.dir);
    }
  }
}

TEST(SeveralProcesses, AProcessKeepsItsSliceOfTheMoments) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  RunConfig config = tiny_config("slices");
  config.train.batch = 6;
  config.train.shard = "optimizer";
  in_processes(3, [&](World& world) {
    TinyRun run(config, nullptr, at::kCPU, &world);
    TrainStep step(*run.model, run.session.config, run.session.data.train, 12, &world);
    const int64_t all = run.model->arena().trainable_size();
    EXPECT_LE(step.state().exp_avg.numel(), all / 3 + 64);
    EXPECT_EQ(step.state().exp_avg.numel(), step.state().exp_avg_sq.numel());
    const OptimizerState whole = step.whole_state();
    EXPECT_EQ(whole.exp_avg.defined(), world.leader());
    if (world.leader()) {
      EXPECT_EQ(whole.exp_avg.numel(), all);
    }
  });
}

// Without groups a sum's order is the engine's: close to one process's weights, and equal in all.
class PlainReduction : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(Of, PlainReduction, ::testing::Values("none", "optimizer"));

TEST_P(PlainReduction, ComesNearOneProcess) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  RunConfig config = tiny_config("plain");
  config.train.batch = 6;
  config.train.steps = 5;
  config.train.shard = GetParam();
  TinyRun alone(config);
  alone.trainer->run();
  const at::Tensor expected = alone.model->arena().master();
  fs::remove_all(config.run.dir);
  std::vector<at::Tensor> weights(3);
  in_processes(3, [&](World& world) {
    TinyRun run(config, nullptr, at::kCPU, &world);
    run.trainer->run();
    weights[static_cast<size_t>(world.rank())] = run.model->arena().master().clone();
  });
  for (const at::Tensor& own : weights) {
    EXPECT_TRUE(at::equal(own, weights[0]));
    // Adam divides rounding errors of tiny gradients by their size: 5 steps of 1e-2.
    EXPECT_LT(own.sub(expected).norm().item<double>() / expected.norm().item<double>(), 1e-4);
  }
}

TEST(SeveralProcesses, EvaluationIsThatOfOneProcess) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  for (RunConfig config : {tiny_config("several_evaluation"), optical_with_noise()}) {
    config.train.steps = 4;
    TinyRun alone(config);
    alone.trainer->run();
    for (const int64_t windows : {0, 3}) {
      const Evaluation one = evaluate(*alone.model, *tiny_stream(2), 8, windows);
      in_processes(3, [&](World& world) {
        TinyRun run(config, nullptr, at::kCPU);
        ASSERT_EQ(run.trainer->resume(), 4);
        const Evaluation own = evaluate(*run.model, *tiny_stream(2), 8, windows, {}, &world);
        EXPECT_EQ(own.loss, one.loss);
        EXPECT_EQ(own.accuracy, one.accuracy);
        EXPECT_EQ(own.tokens, one.tokens);
      });
    }
  }
}

// Ranges move once in a step, by what all its micro-batches saw, and so not as with one call.
TEST(SeveralProcesses, RangesMoveOncePerStep) {
  RunConfig config = optical_with_noise();
  config.run.dir += "_ranges";
  config.train.batch = 8;
  config.train.micro_batch = 0;
  config.train.steps = 1;
  const auto range_after = [&](int64_t groups) {
    config.train.reduction_groups = groups;
    fs::remove_all(config.run.dir);
    TinyRun run(config);
    run.trainer->run();
    return run.model->buffers().find("model.layers.0.self_attn.q_proj.x_range")->tensor.clone();
  };
  const at::Tensor one = range_after(1), eight = range_after(8);
  // The first call sets a range by the whole batch, or by its first sequence; the step then moves
  // it a tenth of the way (q_smooth_factor = 0.9) to what the whole batch had.
  EXPECT_GE(eight.select(0, 0).item<float>(), one.select(0, 0).item<float>());
  EXPECT_LE(eight.select(0, 1).item<float>(), one.select(0, 1).item<float>());
  EXPECT_FALSE(at::equal(one, eight));
}

TEST(SeveralProcesses, RefusesWhatCannotBeDivided) {
  RunConfig config = dense();
  const auto error = [&] { return usage_error_of([&] { check_run_config(config); }); };
  config.train.reduction_groups = 3;
  EXPECT_TRUE(has(error(), "not a power of two"));
  config.train.reduction_groups = 16;
  EXPECT_TRUE(has(error(), "not a multiple of train.reduction_groups = 16"));
  config.train.reduction_groups = 4;
  config.train.micro_batch = 4;
  EXPECT_TRUE(has(error(), "train.micro_batch = 4 does not divide the 2 sequences"));
  config.train.micro_batch = 0;
  EXPECT_EQ(error(), "");
  const auto share = [&](int64_t rank, int64_t size) {
    return usage_error_of([&] { share_of_batch(config, rank, size); });
  };
  EXPECT_EQ(share(3, 4), "");
  EXPECT_TRUE(has(share(0, 8), "can't be divided among 8 processes"));
  EXPECT_TRUE(has(share(0, 3), "can't be divided among 3 processes"));
  config.train.reduction_groups = 0;
  EXPECT_TRUE(has(share(0, 3), "train.batch = 8 can't be divided among 3 processes"));
}

TEST(SeveralProcesses, RefusesQuantileRanges) {
  RunConfig config = grouped("quantiles");
  config.transform =
      R"([{"match": "model\\.layers\\.0\\.mlp\\..*", "kind": "optical",
           "q_quantiles": [0.1, 0.9]}])";
  EXPECT_TRUE(has(usage_error_of([&] { TinyRun run(config); }), "q_quantiles"));
  const testing::TemporaryFolder folder;
  const std::string legacy = folder.str("rules.toml");
  write_file_atomically(legacy, "use_lora = false\n[attention]\n[fc]\nq_quantiles = [0.1, 0.9]\n");
  const std::string rules = std::exchange(config.transform, "{\"legacy\": \"" + legacy + "\"}");
  EXPECT_TRUE(has(usage_error_of([&] { TinyRun run(config); }), "q_quantiles"));
  config.transform = rules;
  config.train.reduction_groups = 0;
  EXPECT_EQ(usage_error_of([&] { TinyRun run(config); }), "");
}

// Groups alone, in one process, change the order of sums and nothing else.
TEST(SeveralProcesses, GroupsComeNearTheWholeBatch) {
  RunConfig config = dense();
  config.run.dir += "_near";
  config.train.steps = 5;
  const auto weights = [&](int64_t groups) {
    config.train.reduction_groups = groups;
    fs::remove_all(config.run.dir);
    TinyRun run(config);
    run.trainer->run();
    return run.model->arena().master().clone();
  };
  const at::Tensor whole = weights(0), eight = weights(8);
  EXPECT_LT(eight.sub(whole).norm().item<double>() / whole.norm().item<double>(), 1e-4);
}

}  // namespace several_processes_test
}  // namespace refract
