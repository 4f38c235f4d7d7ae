#include "runs/inspect/inspect.h"

#include <gtest/gtest.h>

#include "runs/model_folders.h"

namespace refract {
namespace inspect_test {

namespace fs = std::filesystem;

// Weights of width 8, F = 32, V = 257, 12 positions, 2 layers: token and position embeddings, per
// layer two norms, four projections and two feed-forward matrices with biases, and a last norm.
constexpr int64_t kParameters =
    257 * 8 + 12 * 8 + 2 * (2 * 16 + 4 * (64 + 8) + (256 + 32) + (256 + 8)) + 16;

TEST(Inspect, AFolderIsCountedWithoutARun) {
  const fs::path folder = byte_model_folder("inspect_folder");
  const Inspection found = inspect_source(folder.string(), {"train.device=cpu"});
  EXPECT_EQ(found.model.decoder->arena().count(), kParameters);
  EXPECT_EQ(found.matrices.without_embeddings(), 2 * (4 * 64 + 2 * 256));
  EXPECT_EQ(found.matrices.ffn, 2 * 2 * 256);
  EXPECT_EQ(found.forward.ffn, 2 * 2 * 2 * 256);
  EXPECT_EQ(found.training.total(), 3 * found.forward.total());
  EXPECT_EQ(found.guides.total(), 0);
  EXPECT_EQ(found.cost.run.steps, 0);
  EXPECT_EQ(found.memory.state(), 16.0 * kParameters);  // weights, gradients, two moments
  EXPECT_EQ(found.premerge_bytes, 0);
}

TEST(Inspect, ARecipesRunIsCountedWithIt) {
  const fs::path folder = byte_model_folder("inspect_source"), own = empty_folder("inspect_recipe");
  const std::string path = write_recipe(own, "[init]\nfrom = '" + folder.string() + R"('
[data]
context = 6
[train]
steps = 5
batch = 2
precision = "bf16"
device = "cpu"
)");
  const Inspection found = inspect_source(path, {});
  EXPECT_EQ(found.config.data.context, 6);
  EXPECT_EQ(found.cost.run.steps, 5);
  EXPECT_EQ(found.cost.flops.total(), 5 * 2 * 6 * found.training.total());
  // Masters, bf16 weights and gradients, two moments.
  EXPECT_EQ(found.memory.state(), (4.0 + 2 + 2 + 8) * kParameters);
}

TEST(Inspect, MemoryOfEachOfSeveralProcesses) {
  const fs::path folder = byte_model_folder("inspect_several"), own = empty_folder("inspect_each");
  const std::string path = write_recipe(own, "[init]\nfrom = '" + folder.string() + R"('
[data]
context = 6
[train]
steps = 5
batch = 8
device = "cpu"
)");
  const auto bytes = [&](const std::vector<std::string>& settings, int64_t processes) {
    return inspect_source(path, settings, processes).memory.state() / kParameters;
  };
  EXPECT_EQ(bytes({}, 4), 16);
  EXPECT_EQ(bytes({"train.shard=optimizer"}, 1), 16);
  // A quarter of the moments, and two buffers that hold all that is exchanged of so small a model.
  EXPECT_EQ(bytes({"train.shard=optimizer"}, 4), 4 + 4 + 2 + 8);
  // Gradients in half precision are added up in fp32.
  EXPECT_EQ(bytes({"train.precision=bf16"}, 1), 16);
  EXPECT_EQ(bytes({"train.precision=bf16"}, 2), 4 + 2 + 2 + 4 + 8);
  // Of 8 groups in one process three sums wait; of 4 in each of two processes two.
  EXPECT_EQ(bytes({"train.reduction_groups=8"}, 1), 16 + 3 * 4);
  EXPECT_EQ(bytes({"train.reduction_groups=8"}, 2), 16 + 2 * 4 + 8);
  // 2 layers with 3 inputs, 4 sequences of 6 tokens, 8 channels of fp32; the loss's gradient of the
  // states and of the embedding, and less than that.
  const double inputs = 3 * 4 * 6 * 8 * 4, loss = 4 * 4 * 6 * 8 + 4 * 257 * 8;
  const double kept = inspect_source(path, {"train.recompute=layer"}, 2).memory.call->kept;
  EXPECT_GT(kept, inputs + loss);
  EXPECT_LT(kept, inputs + 2 * loss);
}

TEST(Inspect, MergedMatricesAreCountedForInference) {
  const fs::path own = empty_folder("inspect_premerge");
  const std::string path = write_recipe(own, R"([data]
tokenizer = "bytes"
context = 8
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
[train]
steps = 1
device = "cpu"
[decode]
premerge = "on"
[[transform]]
match = 'model\.layers\.1\.mlp\..*'
kind = "low_rank"
rank = 4
)");
  const Inspection found = inspect_source(path, {});
  EXPECT_EQ(found.premerge_bytes, 4 * 2 * 32 * 128);  // two fp32 matrices
}

}  // namespace inspect_test
}  // namespace refract
