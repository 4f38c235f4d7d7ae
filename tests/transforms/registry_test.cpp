// What every kind of the registry must do, built in or added later.
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/gradcheck.h"
#include "support/training.h"
#include "transforms/model_builder.h"

namespace refract {
namespace {

using nlohmann::json;

// Rules that give the kind every layer it can stand for.
std::string rules_for(const KindEntry& entry, json parameters = json::object()) {
  const auto kind = entry.make();
  json rules = json::array();
  auto add = [&](const char* match) {
    json rule = parameters;
    rule["match"] = match;
    rule["kind"] = entry.name;
    rules.push_back(rule);
  };
  if (kind->transforms_linear()) add(".*_proj");
  if (kind->transforms_attention()) add(".*self_attn");
  return rules.dump();
}

// One linear layer of a kind, allocated in float64 and drawn.
struct OneLayer {
  explicit OneLayer(const KindEntry& entry, int64_t in = 12, int64_t out = 16)
      : kind(make_kind(json(entry.name).dump(), "the test")) {
    layer = kind->linear({arena, buffers, transformed}, {"layer", in, out});
    arena.allocate(at::kCPU, at::kDouble, at::kDouble);
    arena.initialize(1);
    layer->initialize(1);
  }
  at::Tensor forward(const at::Tensor& x, bool training = false) const {
    ForwardContext context;
    context.training = training;
    context.clock = at::zeros({2}, at::kLong);
    return layer->forward(context, x);
  }
  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Kind> kind;
  std::unique_ptr<LinearLayer> layer;
};

at::Tensor normal(at::IntArrayRef sizes) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble));
}

template <class F>
void for_each_kind(const F& test) {
  ASSERT_FALSE(registered_kinds().empty());
  for (const KindEntry& entry : registered_kinds()) {
    SCOPED_TRACE(entry.name);
    test(entry);
  }
}

template <class F>
void for_each_linear_kind(const F& test) {
  for_each_kind([&](const KindEntry& entry) {
    if (entry.make()->transforms_linear()) test(entry);
  });
}

TEST(RegistryTest, EveryKindStandsForSomethingAndSaysWhatItIs) {
  for_each_kind([](const KindEntry& entry) {
    const auto kind = entry.make();
    EXPECT_TRUE(kind->transforms_linear() || kind->transforms_attention());
    EXPECT_FALSE(entry.summary.empty());
  });
}

TEST(RegistryTest, EveryKindBuildsOnEveryPresetsShapes) {
  for_each_kind([](const KindEntry& entry) {
    for (const std::string& name : preset_names()) {
      ModelConfig config = preset(name);
      resolve(config, 65, 0);
      const TransformedModel model = build_model(config, rules_for(entry), name);
      int64_t modules = 0;
      for (const PlanRow& row : model.plan) modules += static_cast<int64_t>(row.modules.size());
      const int64_t per_layer = config.gated() ? 8 : 7;
      EXPECT_EQ(modules, per_layer * config.num_hidden_layers) << name;
      EXPECT_GT(model.decoder->arena().count(), 0) << name;
    }
  });
}

TEST(RegistryTest, GradientsAreThoseOfFiniteDifferencesOrOfTheStatedSurrogate) {
  for_each_linear_kind([](const KindEntry& entry) {
    OneLayer one(entry);
    if (!one.kind->straight_through()) {
      testing::expect_gradients(
          [&](const std::vector<at::Tensor>& in) {
            return std::vector<at::Tensor>{one.forward(in[0])};
          },
          {normal({3, 12})}, entry.name);
      return;
    }
    const at::Tensor x = normal({3, 12}).requires_grad_(true), g = normal({3, 16});
    one.forward(x).backward(g);
    const at::Tensor expected = at::matmul(g, one.layer->merged());
    EXPECT_LT((x.grad() - expected).abs().max().item<double>(), 1e-9);
  });
}

TEST(RegistryTest, ParametersGradientsAreFiniteDifferencesToo) {
  for_each_linear_kind([](const KindEntry& entry) {
    OneLayer one(entry);
    if (one.kind->straight_through()) return;
    const at::Tensor x = normal({3, 12}), g = normal({3, 16});
    one.arena.grads().zero_();
    one.forward(x).mul(g).sum().backward();
    at::NoGradGuard no_grad;
    const double h = 1e-5;
    for (const Parameter& parameter : one.arena.parameters()) {
      if (!parameter.trainable) continue;
      at::Tensor value = one.arena.value(&parameter).view(-1);
      const at::Tensor gradient = one.arena.gradient(&parameter).reshape(-1);
      for (int64_t i = 0; i < value.numel(); i += 7) {
        value[i] += h;
        const double above = one.forward(x).mul(g).sum().item<double>();
        value[i] -= 2 * h;
        const double below = one.forward(x).mul(g).sum().item<double>();
        value[i] += h;
        EXPECT_NEAR(gradient[i].item<double>(), (above - below) / (2 * h), 1e-6)
            << parameter.name << " " << i;
      }
    }
  });
}

TEST(RegistryTest, EveryKindTakesOverADenseWeightAndSaysHowWell) {
  for_each_linear_kind([](const KindEntry& entry) {
    OneLayer one(entry);
    const at::Tensor weight = normal({16, 12});
    const double error = one.layer->take_over(weight);
    EXPECT_GE(error, 0);
    EXPECT_LT(error, 1) << "no better than a layer of zeros";
    const at::Tensor merged = one.layer->merged();
    if (!merged.defined()) return;
    const double actual = (merged - weight).norm().item<double>() / weight.norm().item<double>();
    EXPECT_NEAR(actual, error, 1e-6);
  });
}

TEST(RegistryTest, EveryKindRefusesBadParameters) {
  for_each_kind([](const KindEntry& entry) {
    json table = {{"kind", entry.name}, {"no_such_key", 1}};
    EXPECT_THROW(make_kind(table.dump(), "the test"), Error);
    const auto kind = entry.make();
    Fields fields;
    kind->describe(fields);
    for (const Field& field : fields.all()) {
      const json wrong = {{"kind", entry.name}, {field.key, {{"a", {1, 2}}}}};
      EXPECT_THROW(make_kind(wrong.dump(), "the test"), Error) << field.key;
      EXPECT_FALSE(field.help.empty()) << field.key;
    }
  });
}

TEST(RegistryTest, EveryKindTrainsAndResumesBitIdentically) {
  for_each_kind([](const KindEntry& entry) {
    RunConfig config = tiny_config("kind_" + entry.name);
    config.transform = rules_for(entry);
    config.checkpoint.every = 5;
    TinyRun whole(config);
    const at::Tensor before = whole.model->arena().master().clone();
    whole.trainer->run();
    EXPECT_FALSE(at::equal(before, whole.model->arena().master()));
    std::filesystem::remove_all(Checkpoints(config.run.dir).path(12));
    TinyRun resumed(config);
    ASSERT_EQ(resumed.trainer->resume().value_or(-1), 10);
    resumed.trainer->run();
    EXPECT_TRUE(at::equal(whole.model->arena().master(), resumed.model->arena().master()));
    auto& a = whole.model->buffers().all();
    auto& b = resumed.model->buffers().all();
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].name;
  });
}

}  // namespace
}  // namespace refract
