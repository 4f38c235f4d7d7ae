// LoRA beside a frozen layer and merged into its weight: values, gradients, starts, groups,
// resuming.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/cuda_guard.h"
#include "support/tolerances.h"
#include "support/training.h"
#include "transforms/kind.h"

namespace refract {
namespace lora_test {

using nlohmann::json;

constexpr int64_t kWidth = 16, kRank = 3;
constexpr double kScale = 2;  // alpha / r

// Members of different widths, with biases.
ProjectionSpec three(bool bias = true, Activation activation = Activation::kNone) {
  return {{{"q_proj", kWidth, 24, bias}, {"k_proj", kWidth, 8, bias}, {"v_proj", kWidth, 8, bias}},
          activation};
}
ProjectionSpec gate_and_up() {
  return {{{"gate_proj", kWidth, 12}, {"up_proj", kWidth, 12}}, Activation::kSwiglu};
}

std::string lora(const std::string& adapter, const json& over = nullptr) {
  json table = {{"kind", "lora"}, {"r", kRank}, {"alpha", kRank * kScale}, {"adapter", adapter}};
  if (!over.is_null()) table["over"] = over;
  return table.dump();
}
// Without noise, which differs between groups and single layers; and fine, for comparisons with
// dense arithmetic.
json quiet(int64_t levels = 256) {
  return {{"kind", "optical"}, {"noise", false}, {"q_levels", levels}};
}

// A group of a kind with every adapter at work, in one type.
struct Group {
  // `trained`: ends of the names of what is trained beside the adapters.
  Group(const std::string& table, const ProjectionSpec& spec_in, at::ScalarType dtype = at::kDouble,
        at::Device device = at::kCPU, const std::string& trained = "none")
      : spec(spec_in), kind(make_kind(table, "the test")) {
    group = kind->projections({arena, buffers, transformed}, spec);
    arena.freeze_all_but_adapters();
    for (Parameter& p : arena.parameters()) p.trainable |= p.name.ends_with(trained);
    arena.allocate(device, dtype, dtype);
    buffers.to(device);
    arena.initialize(1);
    for (const TransformedLayer& entry : transformed) entry.layer->initialize(1);
    uint64_t seed = 7;
    for (const Parameter& p : arena.parameters()) {
      if (p.name.ends_with("lora_B.weight") || p.shape.size() == 1)
        arena.value(&p).copy_(draw_normal(p.shape, seed++, p.name, 0.2));
      if (p.name.ends_with("_proj.weight"))
        arena.value(&p).copy_(draw_normal(p.shape, seed++, p.name, 0.25));
    }
  }
  at::Tensor forward(const at::Tensor& x, bool training = true) {
    ForwardContext context;
    context.training = training;
    context.clock = at::tensor({int64_t{0}, int64_t{0}}, at::kLong).to(x.device());
    return group->forward(context, x);
  }
  at::Tensor value(const std::string& name) { return arena.value(arena.find(name)); }
  at::Tensor gradient(const std::string& name) { return arena.gradient(arena.find(name)); }
  at::Tensor merged(const std::string& layer) {
    return value(layer + ".weight")
        .add(value(layer + ".lora_B.weight").matmul(value(layer + ".lora_A.weight")), kScale);
  }

  ProjectionSpec spec;
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Kind> kind;
  std::unique_ptr<Projections> group;
};

// The definition with autograd of plain expressions: the layers' dense product with W + s B A, and
// what `upstream`, the gradient of the product with its bias, gives x and the adapters.
struct Definition {
  Definition(Group& g, const at::Tensor& x_in, const at::Tensor& upstream) {
    const at::Tensor x = x_in.detach().clone().requires_grad_(true);
    std::vector<at::Tensor> outputs, inputs = {x};
    for (const LinearSpec& member : g.spec.members) {
      const at::Tensor a = g.value(member.name + ".lora_A.weight").clone().requires_grad_(true);
      const at::Tensor b = g.value(member.name + ".lora_B.weight").clone().requires_grad_(true);
      const at::Tensor weight = g.value(member.name + ".weight").add(b.matmul(a), kScale);
      at::Tensor y = x.matmul(weight.t());
      if (member.bias) y = y.add(g.value(member.name + ".bias"));
      outputs.push_back(y);
      inputs.insert(inputs.end(), {a, b});
    }
    y = at::cat(outputs, -1);
    const auto all = torch::autograd::grad({y.mul(upstream).sum()}, inputs);
    grad_x = all[0];
    for (size_t m = 0; m < g.spec.members.size(); ++m) {
      grad_a.push_back(all[1 + 2 * m]);
      grad_b.push_back(all[2 + 2 * m]);
    }
  }
  at::Tensor y, grad_x;
  std::vector<at::Tensor> grad_a, grad_b;
};

at::Tensor inputs(at::ScalarType dtype, at::Device device = at::kCPU, int64_t tokens = 6) {
  return at::randn({4, tokens, kWidth}, at::TensorOptions().dtype(at::kDouble)).to(device, dtype);
}

void expect_gradients(Group& g, const Definition& expected, const at::Tensor& grad_x,
                      const std::string& what, double factor = 1) {
  testing::expect_close(grad_x, expected.grad_x, what + ": x", factor);
  for (size_t m = 0; m < g.spec.members.size(); ++m) {
    const std::string& name = g.spec.members[m].name;
    testing::expect_close(g.gradient(name + ".lora_A.weight"), expected.grad_a[m], what + ": A",
                          factor);
    testing::expect_close(g.gradient(name + ".lora_B.weight"), expected.grad_b[m], what + ": B",
                          factor);
  }
}

// Gradients of a group without activation against the definition's.
void expect_straight_through(const std::string& table, at::ScalarType dtype, at::Device device,
                             bool same_output, double factor, int64_t tokens) {
  Group g(table, three(), dtype, device);
  const at::Tensor x = inputs(dtype, device, tokens).requires_grad_(true);
  const at::Tensor y = g.forward(x);
  const at::Tensor upstream = at::rand(y.sizes(), y.options());
  y.mul(upstream).sum().backward();
  const Definition expected(g, x, upstream);
  if (same_output) testing::expect_close(y, expected.y, table, factor);
  expect_gradients(g, expected, x.grad(), table, factor);
}

// With fewer rows of x than of the weights, and with more.
void expect_straight_through(const std::string& table, at::ScalarType dtype, at::Device device,
                             bool same_output, double factor = 1) {
  for (const int64_t tokens : {6, 20})
    expect_straight_through(table, dtype, device, same_output, factor, tokens);
}

const json kDense = nullptr;

TEST(Lora, GradientsAreThoseOfTheMergedProduct) {
  for (const char* adapter : {"beside", "merged"}) {
    expect_straight_through(lora(adapter), at::kDouble, at::kCPU, true);
    expect_straight_through(lora(adapter), at::kFloat, at::kCPU, true, 4);
    expect_straight_through(lora(adapter, quiet()), at::kDouble, at::kCPU, false);
    expect_straight_through(lora(adapter, quiet()), at::kFloat, at::kCPU, false, 4);
  }
}

// fp32 products on tensor cores may round to TF32's neighbours; ten roundings instead of one.
TEST(Lora, GradientsAreThoseOfTheMergedProductOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  for (const char* adapter : {"beside", "merged"}) {
    for (const json& over : {kDense, quiet()}) {
      expect_straight_through(lora(adapter, over), at::kFloat, at::kCUDA, over.is_null(), 10);
      expect_straight_through(lora(adapter, over), at::kBFloat16, at::kCUDA, over.is_null(), 4);
    }
  }
}

// A recipe may train what is below the adapters too.
TEST(Lora, BesideAWeightOrABiasThatIsTrainedThatGetsItsGradient) {
  for (const json& over : {kDense, quiet()}) {
    for (const std::string trained : {"_proj.weight", "_proj.bias"}) {
      Group g(lora("beside", over), three(), at::kDouble, at::kCPU, trained);
      const at::Tensor x = inputs(at::kDouble, at::kCPU, 20).requires_grad_(true);
      const at::Tensor y = g.forward(x);
      const at::Tensor upstream = at::rand(y.sizes(), y.options());
      y.mul(upstream).sum().backward();
      expect_gradients(g, Definition(g, x, upstream), x.grad(), trained);
      const at::Tensor k = upstream.narrow(-1, 24, 8).reshape({-1, 8});
      testing::expect_close(g.gradient("k" + trained),
                            trained == "_proj.bias" ? k.sum(0) : k.t().mm(x.detach().flatten(0, 1)),
                            trained);
    }
  }
}

// Against differences of the loss, through SwiGLU, so that nothing of autograd's is taken for
// right.
TEST(Lora, GradientsAreRight) {
  for (const char* adapter : {"beside", "merged"}) {
    Group g(lora(adapter), gate_and_up());
    const at::Tensor x = inputs(at::kDouble);
    const at::Tensor weights = at::rand({4, 6, 12}, x.options());
    const auto loss = [&] { return g.forward(x).mul(weights).sum(); };
    loss().backward();
    const at::NoGradGuard no_grad;
    for (const Parameter& p : g.arena.parameters()) {
      if (!p.adapter) continue;
      const at::Tensor values = g.arena.value(&p).view(-1),
                       gradient = g.arena.gradient(&p).view(-1);
      for (int64_t i = 0; i < values.numel(); i += 5) {
        const double kept = values[i].item<double>(), h = 1e-5;
        values[i].fill_(kept + h);
        const double up = loss().item<double>();
        values[i].fill_(kept - h);
        const double down = loss().item<double>();
        values[i].fill_(kept);
        EXPECT_NEAR(gradient[i].item<double>(), (up - down) / (2 * h), 1e-5) << p.name << " " << i;
      }
    }
  }
}

// The optical layer whose weight is W + s B A: the same output and the same ranges, bit for bit.
void expect_optics_of_the_merged_weight(at::ScalarType dtype, at::Device device) {
  Group merged(lora("merged", quiet()), three(), dtype, device);
  Group plain(quiet().dump(), three(), dtype, device);
  for (const LinearSpec& member : merged.spec.members) {
    // As it is made: one product of the group, rounded once.
    plain.value(member.name + ".weight").copy_(merged.merged(member.name));
    plain.value(member.name + ".bias").copy_(merged.value(member.name + ".bias"));
  }
  for (int step = 0; step < 3; ++step) {
    const at::Tensor x = inputs(dtype, device);
    const at::Tensor y = merged.forward(x), expected = plain.forward(x);
    // Equal levels, but where the merged weight's last place decides between two.
    EXPECT_LT(y.sub(expected).abs().gt(1e-4).to(at::kDouble).mean().item<double>(), 0.01);
    for (const char* role : {"q_proj.x_range", "k_proj.w_range", "v_proj.out_range"}) {
      testing::expect_close(merged.buffers.find(role)->tensor, plain.buffers.find(role)->tensor,
                            role, 4);
    }
  }
}

TEST(Lora, MergedOverOpticalIsTheOpticalLayerOfTheMergedWeight) {
  expect_optics_of_the_merged_weight(at::kDouble, at::kCPU);
  expect_optics_of_the_merged_weight(at::kFloat, at::kCPU);
}
TEST(Lora, MergedOverOpticalIsTheOpticalLayerOfTheMergedWeightOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_optics_of_the_merged_weight(at::kFloat, at::kCUDA);
}

// The two machines: only merged does the adapter decide the weight's range.
TEST(Lora, TheWeightsRangeIsTheMergedOneOnlyWhereItIsMerged) {
  const at::Tensor x = inputs(at::kDouble);
  for (const char* adapter : {"beside", "merged"}) {
    Group g(lora(adapter, quiet()), three());
    g.value("k_proj.lora_B.weight").mul_(50);
    g.forward(x);
    const at::Tensor weight =
        std::string(adapter) == "merged" ? g.merged("k_proj") : g.value("k_proj.weight");
    const at::Tensor range = g.buffers.find("k_proj.w_range")->tensor;
    EXPECT_FLOAT_EQ(range[0].item<float>(), weight.min().to(at::kFloat).item<float>()) << adapter;
    EXPECT_FLOAT_EQ(range[1].item<float>(), weight.max().to(at::kFloat).item<float>()) << adapter;
  }
}

TEST(Lora, AGroupSharesItsInputsQuantization) {
  for (const char* adapter : {"beside", "merged"}) {
    Group g(lora(adapter, quiet()), three());
    EXPECT_NE(g.buffers.find("q_proj.x_range"), nullptr) << adapter;
    EXPECT_EQ(g.buffers.find("k_proj.x_range"), nullptr) << adapter;
    ASSERT_EQ(g.transformed.size(), 3u);
    for (const TransformedLayer& entry : g.transformed) EXPECT_EQ(entry.kind, "lora");
  }
}

// What the merged() of a member says is what the group multiplies by; alone it computes its part.
TEST(Lora, MembersAloneAreTheirPartOfTheGroup) {
  const at::Tensor x = inputs(at::kDouble);
  for (const char* adapter : {"beside", "merged"}) {
    for (const json& over : {kDense, quiet()}) {
      Group g(lora(adapter, over), three(false));
      const at::Tensor whole = g.forward(x, false);
      int64_t first = 0;
      for (const TransformedLayer& entry : g.transformed) {
        const int64_t count = entry.spec.out_features;
        ForwardContext context;
        testing::expect_close(entry.layer->forward(context, x), whole.narrow(-1, first, count),
                              entry.spec.name);
        testing::expect_close(entry.layer->merged(), g.merged(entry.spec.name), entry.spec.name);
        EXPECT_EQ(entry.layer->computes_merged(), over.is_null());
        if (over.is_null()) {
          testing::expect_close(whole.narrow(-1, first, count),
                                at::linear(x, entry.layer->merged()), entry.spec.name);
        }
        first += count;
      }
    }
  }
}

TEST(Lora, TakesOverTheWeightBelowTheAdapter) {
  for (const char* adapter : {"beside", "merged"}) {
    for (const json& over : {kDense, quiet()}) {
      Group g(lora(adapter, over), three());
      const at::Tensor weight = at::randn({8, kWidth}, at::TensorOptions().dtype(at::kDouble));
      EXPECT_EQ(g.transformed[1].layer->take_over(weight), 0);
      EXPECT_TRUE(at::equal(g.value("k_proj.weight"), weight));
    }
  }
}

TEST(Lora, ManyTokensOfOneMicroBatchMergeOnce) {
  Group g(lora("merged", quiet()), three());
  const at::Tensor x = inputs(at::kDouble);
  ForwardContext context;
  context.clock = at::tensor({int64_t{0}, int64_t{0}}, at::kLong);
  const at::Tensor before = g.group->forward(context, x);
  g.value("q_proj.lora_B.weight").mul_(3);
  context.weights_changed = false;
  EXPECT_TRUE(at::equal(g.group->forward(context, x), before)) << "what was made is used";
  context.weights_changed = true;
  EXPECT_FALSE(at::equal(g.group->forward(context, x), before));
}

// PEFT's start: kaiming uniform with a = sqrt(5) is U(-1 / sqrt(in), 1 / sqrt(in)).
TEST(Lora, AStartsUniformAndBAtZero) {
  for (const char* adapter : {"beside", "merged"}) {
    for (const json& over : {kDense, json("optical"), json({{"kind", "low_rank"}, {"rank", 8}})}) {
      if (over.is_object() && std::string(adapter) == "merged") continue;  // refused
      ModelConfig model = tiny_config("start").model;
      resolve(model, 16, 8);
      json rule = {{"match", ".*_proj"}, {"kind", "lora"}, {"r", 32}, {"adapter", adapter}};
      if (!over.is_null()) rule["over"] = over;
      const auto decoder = build_model(model, json::array({rule}).dump(), "the test").decoder;
      decoder->allocate(at::kCPU, at::kFloat);
      decoder->initialize(1);
      std::vector<at::Tensor> scaled;
      for (const Parameter& p : decoder->arena().parameters()) {
        const at::Tensor value = decoder->arena().value(&p);
        if (p.name.ends_with("lora_B.weight")) {
          EXPECT_EQ(value.abs().max().item<double>(), 0) << p.name;
        }
        if (!p.name.ends_with("lora_A.weight")) continue;
        scaled.push_back(value.mul(std::sqrt(static_cast<double>(p.shape[1]))).flatten());
      }
      ASSERT_EQ(scaled.size(), 12u);
      const at::Tensor all = at::cat(scaled).to(at::kDouble);
      const auto n = static_cast<double>(all.numel());
      EXPECT_LT(all.abs().max().item<double>(), 1);
      EXPECT_GT(all.abs().max().item<double>(), 0.999);
      // Five deviations of the mean of n numbers, and of their squares (variance 4 / 45).
      EXPECT_LT(std::abs(all.mean().item<double>()), 5 * std::sqrt(1 / (3 * n)));
      EXPECT_LT(std::abs(all.square().mean().item<double>() - 1.0 / 3),
                5 * std::sqrt(4 / (45 * n)));
      EXPECT_FALSE(at::equal(scaled[0], scaled[1])) << "each layer draws its own";
    }
  }
}

RunConfig run_config(const std::string& name, const std::string& adapter) {
  RunConfig config = tiny_config("lora_" + name + adapter);
  config.transform = json::array({{{"match", ".*_proj"},
                                   {"kind", "lora"},
                                   {"r", 4},
                                   {"adapter", adapter},
                                   {"over", "optical"}}})
                         .dump();
  return config;
}

TEST(Lora, OverOpticalTrainsItsAdaptersOnly) {
  for (const char* adapter : {"beside", "merged"}) {
    TinyRun run(run_config("trains", adapter));
    const auto& arena = run.model->arena();
    std::vector<at::Tensor> before;
    for (const Parameter& p : arena.parameters()) before.push_back(arena.value(&p).clone());
    run.trainer->run();
    size_t i = 0;
    for (const Parameter& p : arena.parameters()) {
      EXPECT_EQ(at::equal(arena.value(&p), before[i++]), !p.adapter) << p.name;
    }
  }
}

TEST(Lora, ResumesBitIdentically) {
  for (const char* adapter : {"beside", "merged"}) {
    RunConfig config = run_config("resumes", adapter);
    config.train.precision = "bf16";
    config.train.micro_batch = 2;
    if (std::string(adapter) == "beside") {
      json rules = json::parse(config.transform);
      rules[0]["dropout"] = 0.1;
      config.transform = rules.dump();
    }
    TinyRun whole(config);
    whole.trainer->run();
    std::filesystem::remove_all(config.run.dir);
    RunConfig part = config;
    part.checkpoint.permanent = {5};
    TinyRun first(part);
    first.trainer->run();
    const Checkpoints checkpoints(config.run.dir);
    for (const int64_t step : checkpoints.steps()) {
      if (step > 5) std::filesystem::remove_all(checkpoints.path(step));
    }
    TinyRun resumed(config);
    ASSERT_EQ(resumed.trainer->resume(), 5);
    resumed.trainer->run();
    EXPECT_TRUE(at::equal(whole.model->arena().master(), resumed.model->arena().master()));
    for (size_t i = 0; i < whole.model->buffers().all().size(); ++i) {
      EXPECT_TRUE(at::equal(whole.model->buffers().all()[i].tensor,
                            resumed.model->buffers().all()[i].tensor));
    }
  }
}

std::string message_of(const std::string& table) {
  try {
    make_kind(table, "rule 1");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Lora, RefusesToMergeWhereThatMeansNothing) {
  const auto refused = message_of(lora("merged", {{"kind", "low_rank"}, {"rank", 4}}));
  EXPECT_NE(refused.find("over = \"low_rank\" can't have adapters"), std::string::npos) << refused;
  EXPECT_NE(message_of(lora("merged", json::parse(lora("beside")))).find("over = \"lora\""),
            std::string::npos);
  json dropped = json::parse(lora("merged"));
  dropped["dropout"] = 0.1;
  EXPECT_NE(message_of(dropped.dump()).find("dropout = 0.1"), std::string::npos);
  EXPECT_NE(message_of(lora("besides")).find("adapter"), std::string::npos);
}

}  // namespace lora_test
}  // namespace refract
