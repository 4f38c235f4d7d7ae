#include "model/parameters.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <stdexcept>
#include <vector>

#include "core/error.h"
#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace parameters_test {

using testing::error_of;

std::vector<Parameter*> named(ParameterArena& arena, const std::vector<std::string>& names) {
  std::vector<Parameter*> found;
  for (const std::string& name : names) found.push_back(arena.find(name));
  return found;
}

// The parameters' views stand one behind the other in the buffer they share.
void expect_adjacent(ParameterArena& arena, const std::vector<std::string>& names) {
  const std::vector<Parameter*> group = named(arena, names);
  for (size_t i = 0; i < group.size(); ++i) {
    ASSERT_NE(group[i], nullptr) << names[i];
    const at::Tensor value = arena.value(group[i]);
    EXPECT_EQ(value.storage().data(), arena.master().storage().data());
    if (i == 0) continue;
    const at::Tensor before = arena.value(group[i - 1]);
    EXPECT_EQ(static_cast<const float*>(before.const_data_ptr()) + before.numel(),
              value.const_data_ptr())
        << names[i];
  }
  const at::Tensor joint = arena.joint_leaf(group);
  EXPECT_TRUE(joint.is_leaf() && joint.requires_grad());
  EXPECT_EQ(joint.const_data_ptr(), arena.value(group[0]).const_data_ptr());
  EXPECT_EQ(joint.grad().storage().data(), arena.grads().storage().data());
}

TEST(ParameterArenaTest, GroupsShareTheArenaSideBySide) {
  for (const auto& [name, config] : testing::every_setting()) {
    auto decoder = testing::make_decoder(config);
    for (int layer = 0; layer < 2; ++layer) {
      const std::string prefix = fmt::format("model.layers.{}.", layer),
                        attn = prefix + "self_attn.";
      expect_adjacent(decoder->arena(),
                      {attn + "q_proj.weight", attn + "k_proj.weight", attn + "v_proj.weight"});
      if (config.attention_bias) {
        expect_adjacent(decoder->arena(),
                        {attn + "q_proj.bias", attn + "k_proj.bias", attn + "v_proj.bias"});
      }
      if (config.gated()) {
        expect_adjacent(decoder->arena(),
                        {prefix + "mlp.gate_proj.weight", prefix + "mlp.up_proj.weight"});
      }
    }
  }
}

TEST(ParameterArenaTest, AJointLeafsGradientIsItsParametersGradients) {
  ParameterArena arena;
  const auto group =
      arena.declare_group({{"q", {3, 2}, Init::normal(1)}, {"k", {1, 2}, Init::normal(1)}});
  arena.allocate(at::kCPU, at::kFloat, at::kFloat);
  arena.initialize(1);
  const at::Tensor joint = arena.joint_leaf(group);
  EXPECT_EQ(joint.sizes(), (std::vector<int64_t>{4, 2}));
  (joint * joint).sum().backward();
  EXPECT_TRUE(at::equal(arena.gradient(group[0]), arena.value(group[0]) * 2));
  EXPECT_TRUE(at::equal(arena.gradient(group[1]), arena.value(group[1]) * 2));
  arena.leaf(group[1]).sum().backward();  // its own leaf adds to the same place
  EXPECT_TRUE(at::equal(arena.gradient(group[1]), arena.value(group[1]) * 2 + 1));
}

TEST(ParameterArenaTest, OrderIsMatricesVectorsFrozen) {
  ParameterArena arena;
  arena.declare({"frozen", {5, 5}, Init::ones(), false});
  arena.declare({"vector", {3}, Init::ones()});
  arena.declare({"matrix", {10, 3}, Init::ones()}, 64);
  arena.allocate(at::kCPU, at::kFloat, at::kBFloat16);
  const Parameter *frozen = arena.find("frozen"), *vector = arena.find("vector"),
                  *matrix = arena.find("matrix");
  EXPECT_EQ(matrix->offset, 0);
  EXPECT_EQ(matrix->padded_rows, 64);
  EXPECT_EQ(vector->offset, arena.matrix_size());
  EXPECT_EQ(frozen->offset, arena.trainable_size());
  EXPECT_EQ(arena.grads().numel(), arena.trainable_size());
  EXPECT_EQ(arena.count(), 25 + 3 + 30);
  EXPECT_EQ(arena.trainable_count(), 33);
  EXPECT_FALSE(arena.leaf(frozen).requires_grad());
  arena.initialize(1);
  EXPECT_EQ(arena.compute().scalar_type(), at::kBFloat16);
  EXPECT_EQ(arena.compute().sum().item<float>(), 25 + 3 + 30);  // the padding is zero
  EXPECT_EQ(arena.leaf(matrix).size(0), 64);
  EXPECT_EQ(arena.value(matrix).size(0), 10);
}

TEST(ParameterArenaTest, MistakesAreErrors) {
  ParameterArena arena;
  Parameter* a = arena.declare({"a", {64}, Init::ones()});
  EXPECT_NE(error_of([&] {
              arena.declare({"a", {2}, Init::ones()});
            }).find("'a'"),
            std::string::npos);
  Parameter* b = arena.declare({"b", {4, 4}, Init::ones()});
  arena.allocate(at::kCPU, at::kFloat, at::kFloat);
  const std::vector<Parameter*> apart = {a, b};
  EXPECT_FALSE(arena.adjacent(apart));
  // Faults of a program, which no request of a user can bring about.
  EXPECT_THROW(arena.joint_leaf(apart), std::logic_error);
  EXPECT_THROW(arena.declare({"c", {2}, Init::ones()}), std::logic_error);
  EXPECT_THROW(arena.allocate(at::kCPU, at::kFloat, at::kFloat), std::logic_error);
}

TEST(ParameterArenaTest, RefusesWhatNoMachineHolds) {
  const int64_t large = int64_t{1} << 23;
  const auto refusal = [](ParameterArena& arena, const std::vector<int64_t>& shape) {
    return error_of([&] { arena.declare({"big", shape, Init::zeros()}); });
  };
  ParameterArena arena;
  EXPECT_NE(refusal(arena, {large, 2 * large}).find("'big' [8388608, 16777216]"),
            std::string::npos);
  EXPECT_NE(refusal(arena, {int64_t{1} << 40, int64_t{1} << 40}).find("too large"),
            std::string::npos);
  arena.declare({"half", {large, large / 2}, Init::zeros()});
  EXPECT_NE(refusal(arena, {large, large / 2 + 1}).find("2^46"), std::string::npos);
  arena.declare({"other half", {large, large / 2}, Init::zeros()});
  EXPECT_EQ(arena.count(), large * large);
}

ModelConfig wide() {
  ModelConfig c = testing::small_gpt2();
  c.hidden_size = 128;
  c.vocab_size = 1001;
  c.max_position_embeddings = 256;
  c.intermediate_size = c.head_dim = 0;
  resolve(c, 0, 0);
  return c;
}

TEST(InitialisationTest, HasTheStatedDistribution) {
  for (bool scaled : {false, true}) {
    ModelConfig config = wide();
    config.scaled_residual_init = scaled;
    Decoder decoder(config, DenseFactory());
    decoder.allocate(at::kCPU, at::kFloat);
    decoder.arena().initialize(7);
    for (const Parameter& p : decoder.arena().parameters()) {
      const at::Tensor value = decoder.arena().value(&p);
      if (p.name.ends_with(".bias")) {
        EXPECT_EQ(value.abs().max().item<float>(), 0) << p.name;
      } else if (p.shape.size() == 1) {
        EXPECT_EQ(value.min().item<float>(), 1) << p.name;
        EXPECT_EQ(value.max().item<float>(), 1) << p.name;
      } else {
        const bool residual =
            p.name.ends_with("o_proj.weight") || p.name.ends_with("down_proj.weight");
        double std = p.name == "model.embed_positions.weight" ? 0.01 : 0.02;
        if (residual && scaled) std /= 2;  // sqrt(2 L), L = 2
        const double n = static_cast<double>(value.numel());
        EXPECT_NEAR(value.std().item<double>() / std, 1, 4 / std::sqrt(2 * n))
            << p.name;  // 4 standard errors
        EXPECT_NEAR(value.mean().item<double>() / std, 0, 4 / std::sqrt(n)) << p.name;
        EXPECT_GT(value.abs().max().item<double>() / std, 3.2)
            << p.name;  // tails of a normal, not a uniform
        const double fourth = (value.to(at::kDouble) / std).pow(4).mean().item<double>();
        EXPECT_NEAR(fourth, 3, 4 * std::sqrt(96 / n)) << p.name;
      }
    }
  }
}

// A normal distribution cut at three standard deviations keeps 0.9734 of its variance.
TEST(InitialisationTest, TorchtitansHeadIsCutAndTheRestIsNot) {
  ModelConfig config = testing::small_llama();
  config.vocab_size = 1001;
  config.hidden_size = 64;
  config.init_scheme = "torchtitan";
  Decoder decoder(config, DenseFactory());
  decoder.allocate(at::kCPU, at::kFloat);
  decoder.arena().initialize(7);
  const auto moments = [&](const std::string& name, double std, double spread, double cut) {
    const at::Tensor value = decoder.arena().value(decoder.arena().find(name));
    const double n = static_cast<double>(value.numel());
    EXPECT_NEAR(value.std().item<double>() / (std * spread), 1, 4 / std::sqrt(2 * n)) << name;
    EXPECT_NEAR(value.mean().item<double>() / std, 0, 4 / std::sqrt(n)) << name;
    EXPECT_LE(value.abs().max().item<double>(), cut) << name;
  };
  const double head = 1 / std::sqrt(64.0), none = 1e9;
  moments("lm_head.weight", head, std::sqrt(0.973354), 3 * head * (1 + 1e-6));
  moments("model.embed_tokens.weight", 1, 1, none);
  const at::Tensor tokens =
      decoder.arena().value(decoder.arena().find("model.embed_tokens.weight"));
  EXPECT_GT(tokens.abs().max().item<double>(), 3.5);
  for (int64_t layer = 0; layer < 2; ++layer) {
    const std::string name = "model.layers." + std::to_string(layer) + ".";
    const double deep = 0.02 / std::sqrt(2.0 * static_cast<double>(layer + 1));
    for (const char* part :
         {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj"})
      moments(name + part + ".weight", 0.02, 1, none);
    for (const char* part : {"self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"})
      moments(name + part + ".weight", deep, 1, none);
  }
}

TEST(InitialisationTest, ACutRedrawsWhatLiesBeyondItAndNothingElse) {
  const at::Tensor whole = draw_normal({20'000}, 3, "x", 1);
  const at::Tensor cut = draw_truncated_normal({20'000}, 3, "x", 1, 1.5);
  const at::Tensor inside = whole.abs().le(1.5);
  EXPECT_TRUE(at::equal(cut.masked_select(inside), whole.masked_select(inside)));
  EXPECT_LE(cut.abs().max().item<double>(), 1.5);
  const at::Tensor redrawn = cut.masked_select(inside.logical_not());
  EXPECT_NEAR(static_cast<double>(redrawn.numel()) / 20'000, 0.1336, 4 * std::sqrt(0.116 / 20'000));
  // As wide as the rest: the variance of a normal distribution cut at 1.5 is 0.5512.
  EXPECT_NEAR(redrawn.std().item<double>(), std::sqrt(0.5512), 0.04);
  EXPECT_TRUE(at::equal(cut, draw_truncated_normal({20'000}, 3, "x", 1, 1.5)));
}

TEST(InitialisationTest, DependsOnSeedAndNameAlone) {
  auto values = [](const ModelConfig& config, uint64_t seed, const char* name) {
    Decoder decoder(config, DenseFactory());
    decoder.allocate(at::kCPU, at::kFloat);
    decoder.arena().initialize(seed);
    return decoder.arena().value(decoder.arena().find(name)).clone();
  };
  const char* q1 = "model.layers.1.self_attn.q_proj.weight";
  ModelConfig deeper = wide();
  deeper.num_hidden_layers = 3;
  EXPECT_TRUE(at::equal(values(wide(), 1, q1), values(wide(), 1, q1)));
  EXPECT_TRUE(at::equal(values(wide(), 1, q1), values(deeper, 1, q1)));
  EXPECT_FALSE(at::equal(values(wide(), 1, q1), values(wide(), 2, q1)));
  EXPECT_FALSE(at::equal(values(wide(), 1, q1),
                         values(wide(), 1, "model.layers.0.self_attn.q_proj.weight")));
}

TEST(InitialisationTest, DoesNotDependOnTheNumberOfThreads) {
  const int threads = at::get_num_threads();
  at::Tensor first;
  for (int n : {1, 2}) {
    at::set_num_threads(n);
    Decoder decoder(wide(), DenseFactory());
    decoder.allocate(at::kCPU, at::kFloat);
    decoder.arena().initialize(1);
    if (n == 1) first = decoder.arena().master().clone();
    EXPECT_TRUE(at::equal(first, decoder.arena().master())) << n << " threads";
  }
  at::set_num_threads(threads);
}

TEST(BufferStoreTest, NamesAreUniqueAndFound) {
  BufferStore buffers;
  BufferStore::Buffer* a = buffers.declare("a", at::full({2}, 1.0));
  EXPECT_EQ(buffers.find("a"), a);
  EXPECT_EQ(buffers.find("b"), nullptr);
  EXPECT_NE(error_of([&] { buffers.declare("a", at::full({2}, 1.0)); }).find("'a'"),
            std::string::npos);
}

}  // namespace parameters_test
}  // namespace refract
