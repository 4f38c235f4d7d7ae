// The whole step on a GPU: captured and not, resumed and not, half precision, dropout and
// micro-batches.
#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "support/cuda_guard.h"
#include "support/training.h"

namespace refract {
namespace cuda_test {

namespace fs = std::filesystem;

// All the weights after the run, with deterministic algorithms.
at::Tensor train(RunConfig config, const std::string& graph, const std::vector<int64_t>& stops) {
  config.train.cuda_graph = graph;
  fs::remove_all(config.run.dir);
  const CudaRuntime* cuda = cuda_runtime();
  cuda->set_deterministic(true);
  cuda->prefer_cudnn_attention(false);
  cuda->use_side_stream();
  at::Tensor weights;
  for (size_t i = 0; i <= stops.size(); ++i) {
    RunConfig part = config;
    if (i < stops.size()) part.checkpoint.permanent = {stops[i]};
    TinyRun run(part, nullptr, at::Device(at::kCUDA, 0));
    run.trainer->resume();
    run.trainer->run();
    EXPECT_EQ(run.trainer->captured(),
              graph == "on" && config.train.steps - (i > 0 ? stops[i - 1] : 0) > 3);
    weights = run.model->arena().master().cpu();
    const Checkpoints checkpoints(part.run.dir);
    for (int64_t step : checkpoints.steps()) {
      if (i < stops.size() && step > stops[i]) fs::remove_all(checkpoints.path(step));
    }
  }
  return weights;
}

std::vector<RunConfig> settings() {
  RunConfig plain = tiny_config("cuda_fp32"), mixed = tiny_config("cuda_bf16");
  mixed.train.precision = "bf16";
  mixed.train.micro_batch = 2;
  mixed.model.dropout = 0.1;
  // Two graphs while there are guides, with them and without, then a third.
  RunConfig guided = mixed;
  guided.run.dir += "_guided";
  guided.train.steps = 32;
  guided.transform =
      R"([{"match": "model\\.layers\\.1\\.mlp\\..*", "kind": "block_shuffle", "blocks": 2}])";
  guided.self_guided.mode = "fixedflop";
  guided.self_guided.ratio = 0.5;
  guided.self_guided.reduce_flop = true;
  // Heads of a width that the optical attention's kernels do not have.
  RunConfig optical = plain;
  optical.run.dir += "_optical";
  optical.transform =
      R"([{"match": "model\\.layers\\.\\d+\\.self_attn(\\.\\w+_proj)?", "kind": "optical"}])";
  return {plain, mixed, guided, optical};
}

TEST(CudaTraining, CapturedEqualsUncaptured) {
  REFRACT_CUDA_OR_SKIP();
  for (const RunConfig& config : settings()) {
    const at::Tensor eager = train(config, "off", {});
    EXPECT_TRUE(at::equal(train(config, "on", {}), eager)) << config.run.dir;
    EXPECT_TRUE(at::equal(train(config, "off", {}), eager)) << config.run.dir;
  }
}

TEST(CudaTraining, ResumedEqualsUninterrupted) {
  REFRACT_CUDA_OR_SKIP();
  for (const RunConfig& config : settings()) {
    EXPECT_TRUE(at::equal(train(config, "on", {5, 9}), train(config, "on", {}))) << config.run.dir;
  }
}

// Before the capture, by the captured step, and with two graphs in turn.
TEST(CudaTraining, VerifiedStepsRepeat) {
  REFRACT_CUDA_OR_SKIP();
  for (RunConfig config : settings()) {
    const at::Tensor plain = train(config, "on", {});
    config.train.deterministic = true;
    config.train.verify = 1;
    ::testing::internal::CaptureStderr();
    EXPECT_TRUE(at::equal(train(config, "on", {}), plain)) << config.run.dir;
    const std::string said = ::testing::internal::GetCapturedStderr();
    EXPECT_EQ(said.find("gave other bits"), std::string::npos) << said;
  }
}

TEST(CudaTraining, AgreesWithTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  RunConfig config = tiny_config("cuda_cpu");
  config.train.steps = 5;
  const at::Tensor gpu = train(config, "on", {});
  fs::remove_all(config.run.dir);
  TinyRun run(config);
  run.trainer->run();
  const at::Tensor cpu = run.model->arena().master();
  EXPECT_LT(gpu.sub(cpu).norm().item<double>() / cpu.norm().item<double>(), 1e-4);
}

}  // namespace cuda_test
}  // namespace refract
