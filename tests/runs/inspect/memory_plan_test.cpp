// The prediction of memory: against what a CPU's autograd keeps, and a GPU's allocator counts.
#include "runs/inspect/memory_plan.h"

#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "model/backward/recompute.h"
#include "support/cuda_guard.h"
#include "support/memory_meter.h"
#include "support/small_models.h"
#include "support/training.h"
#include "train/memory.h"

namespace refract {
namespace memory_plan_test {

constexpr int64_t kBatch = 2, kTokens = 160;  // more than the CPU's own attention takes

RunConfig config_of(ModelConfig model, int64_t layers, const std::string& transform,
                    const std::string& recompute) {
  RunConfig config;
  config.model = std::move(model);
  config.model.num_hidden_layers = layers;
  config.model.hidden_size = 32;
  config.model.intermediate_size = 96;
  config.model.num_key_value_heads = config.model.num_attention_heads;
  config.model.head_dim = 0;
  config.model.max_position_embeddings = kTokens;
  resolve(config.model, 0, kTokens);
  config.transform = transform;
  config.data.context = kTokens;
  config.train.recompute = recompute;
  config.train.batch = kBatch;
  config.train.device = "cpu";
  return config;
}

// Bytes that are there after a forward pass and were not before.
double kept_on_cpu(const RunConfig& config) {
  auto built = build_model(config.model, config.transform, "test");
  Decoder& model = *built.decoder;
  model.allocate(at::kCPU, at::kFloat);
  model.initialize(1);
  const at::Tensor tokens = testing::tokens_for(config.model, kBatch, kTokens + 1).to(at::kInt);
  const at::Tensor inputs = tokens.narrow(1, 0, kTokens).contiguous(),
                   targets = tokens.narrow(1, 1, kTokens).contiguous();
  ForwardContext context;
  context.training = true;
  context.clock = at::zeros({2}, at::kLong);
  const RecomputeScope scope(recompute_of(config.train.recompute));
  const testing::MeterScope meter;
  const at::Tensor loss = model.loss(context, inputs, targets).sum;
  return static_cast<double>(meter->live());
}

// What every further layer adds: the rest is of the ends of the model, where the CPU's loss keeps
// other things than a GPU's.
TEST(MemoryPlan, CountsWhatAutogradKeepsOfALayer) {
  const std::map<std::string, std::string> rules = {
      {"dense", ""},
      {"low rank", R"([{"match": ".*mlp.*", "kind": "low_rank", "rank": 8}])"},
      {"lora", R"([{"match": ".*_proj", "kind": "lora", "r": 4, "over": "optical"}])"},
      {"flips", R"([{"match": ".*_proj", "kind": "bit_flip"}])"}};
  for (const auto& [name, rule] : rules) {
    for (const ModelConfig& model : {testing::small_gpt2(), testing::small_llama()}) {
      for (const char* recompute : {"none", "cheap", "layer"}) {
        const auto added = [&](const auto& count) {
          return count(config_of(model, 5, rule, recompute)) -
                 count(config_of(model, 3, rule, recompute));
        };
        const double cpu = added(kept_on_cpu);
        const double planned =
            added([](const RunConfig& c) { return measure_call(c, kBatch)->kept; });
        EXPECT_EQ(planned, cpu) << name << ", " << model.norm << ", " << recompute;
        EXPECT_GT(cpu, 0);
      }
    }
  }
}

TEST(MemoryPlan, PartsAddUp) {
  RunConfig config = config_of(testing::small_llama(), 2, "", "none");
  config.train.precision = "bf16";
  config.train.device = "cuda";
  const MemoryPlan plan = plan_memory(config, 2);
  ASSERT_TRUE(plan.call);
  EXPECT_GT(plan.sums, 0);
  EXPECT_EQ(plan.state(), plan.weights + plan.gradients + plan.moments + plan.sums + plan.exchange);
  EXPECT_EQ(*plan.peak(), plan.state() + plan.call->most + plan.libraries);
  EXPECT_GT(plan.call->most, plan.call->kept);
}

// No masters, gradients or moments of what is frozen.
TEST(MemoryPlan, FrozenWeightsExistOnce) {
  const std::string rule = R"([{"match": ".*_proj", "kind": "lora", "r": 4}])";
  RunConfig config = config_of(testing::small_llama(), 2, rule, "none");
  config.train.precision = "bf16";
  auto model = build_model(config.model, config.transform, "test").decoder;
  const auto all = static_cast<double>(model->arena().count()),
             trained = static_cast<double>(model->arena().trainable_count());
  const MemoryPlan plan = plan_memory(config, 1);
  EXPECT_EQ(plan.weights, 2 * all + 4 * trained);
  EXPECT_EQ(plan.gradients, 2 * trained);
  EXPECT_EQ(plan.moments, 8 * trained);
  model->allocate(at::kCPU, at::kBFloat16);
  EXPECT_EQ(model->arena().master().numel(), model->arena().trainable_size());
}

// Large enough that the allocator's rounding and what libraries take are small beside it.
RunConfig on_gpu(const std::string& transform, const std::string& recompute, bool llama) {
  RunConfig config = tiny_config("memory_plan");
  config.data.context = 1024;
  config.train.batch = 8;
  config.train.steps = 5;
  config.train.precision = "bf16";
  config.train.device = "cuda";
  config.train.recompute = recompute;
  config.transform = transform;
  config.model.vocab_size = 16384;
  config.model.hidden_size = 768;
  config.model.num_hidden_layers = 8;
  config.model.num_attention_heads = 12;
  if (llama) {
    config.model.norm = "rmsnorm";
    config.model.position = "rope";
    config.model.hidden_act = "swiglu";
    config.model.attention_bias = config.model.attention_output_bias = false;
    config.model.mlp_bias = config.model.tie_word_embeddings = false;
    config.model.num_key_value_heads = 4;
    config.model.intermediate_size = 2688;
  }
  return config;
}

void expect_peak(const std::string& name, const RunConfig& config) {
  const at::Device device(at::kCUDA, 0);
  cuda_runtime()->use_side_stream();
  cuda_runtime()->empty_cache();
  reset_peak_memory(device);
  const double before = peak_memory(device);
  RunConfig resolved = config;
  resolve(resolved.model, 16, config.data.context);
  const MemoryPlan plan = plan_memory(resolved, 1);
  ASSERT_TRUE(plan.peak()) << name;
  std::filesystem::remove_all(config.run.dir);
  TinyRun run(config, nullptr, device);
  run.trainer->run();
  const double measured = peak_memory(device) - before;
  fmt::print("{}: {:.0f} MiB planned, {:.0f} measured\n", name, *plan.peak() / (1 << 20),
             measured / (1 << 20));
  EXPECT_NEAR(*plan.peak(), measured, 0.1 * measured) << name;
}

TEST(MemoryPlan, CudaPeaksAreWithinATenth) {
  REFRACT_CUDA_OR_SKIP();
  const std::string optical = R"([{"match": ".*_proj|.*self_attn", "kind": "optical"}])";
  const std::string low_rank = R"([{"match": ".*mlp.*", "kind": "low_rank", "rank": 256}])";
  const std::string lora = R"([{"match": ".*_proj", "kind": "lora", "r": 32}])";
  const std::vector<std::string> settings = {"none", "cheap", "layer"};
  for (const std::string& recompute : settings) {
    expect_peak("gpt2 " + recompute, on_gpu("", recompute, false));
    expect_peak("llama " + recompute, on_gpu("", recompute, true));
    expect_peak("optical llama " + recompute, on_gpu(optical, recompute, true));
    expect_peak("low rank gpt2 " + recompute, on_gpu(low_rank, recompute, false));
    expect_peak("lora llama " + recompute, on_gpu(lora, recompute, true));
  }
}

}  // namespace memory_plan_test
}  // namespace refract
