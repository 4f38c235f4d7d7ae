// What every kind of the registry must do, built in or added later.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "core/error.h"
#include "support/gradcheck.h"
#include "support/training.h"
#include "transforms/guided.h"
#include "transforms/kind.h"
#include "transforms/model_builder.h"
#include "transforms/one_layer.h"

namespace refract {
namespace registry_test {

using nlohmann::json;
using testing::normal;
using testing::OneLayer;

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

OneLayer layer_of(const KindEntry& entry) { return OneLayer(json(entry.name).dump()); }

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

// A file in kinds/ is all that the registry needs, and every file there is in it.
TEST(RegistryTest, TheBuiltInKindsAreTheFilesOfTheirFolderByName) {
  if (!std::filesystem::exists("src")) GTEST_SKIP() << "the sources are not here";
  std::vector<std::string> files, kinds;
  for (const auto& entry : std::filesystem::directory_iterator("src/transforms/kinds"))
    files.push_back(entry.path().filename().string());
  std::sort(files.begin(), files.end());
  for (const KindEntry& entry : registered_kinds()) kinds.push_back(entry.name + ".cpp");
  EXPECT_EQ(files, kinds);
}

// The second file of a kind; tests/cli/test_kinds.py compares its tables of parameters.
TEST(RegistryTest, EveryKindHasItsSectionInTheDocumentation) {
  if (!std::filesystem::exists("docs")) GTEST_SKIP() << "the pages are not here";
  std::ifstream stream("docs/transforms.md");
  std::stringstream page;
  page << stream.rdbuf();
  for_each_kind([&](const KindEntry& entry) {
    EXPECT_NE(page.str().find(fmt::format("### `{}`\n{}", entry.name, entry.summary)),
              std::string::npos);
  });
}

TEST(RegistryTest, ANameIsTakenOnce) {
  const KindEntry known = registered_kinds().front();
  EXPECT_THROW(register_kind(known), Error);
  EXPECT_THROW(register_kind({"none", "", known.make}), Error);
  EXPECT_THROW(register_kind({"", "", known.make}), Error);
  EXPECT_EQ(make_kind(json(known.name).dump(), "the test")->name(), known.name);
}

// Of both layers of a feed-forward together; block_dense's ranks come within 4 points.
TEST(RegistryTest, EverySizedKindLeavesAboutTheShare) {
  for_each_linear_kind([](const KindEntry& entry) {
    for (const int64_t width : {768, 2048}) {
      for (const double share : {0.63, 0.32}) {
        json table = json::parse(entry.make()->parameters_for_share(width, share));
        if (table.empty()) continue;
        table["kind"] = entry.name;
        const auto kind = make_kind(table.dump(), "the test");
        ParameterArena arena;
        BufferStore buffers;
        std::vector<TransformedLayer> transformed;
        const auto up = kind->linear({arena, buffers, transformed}, {"up", width, 4 * width});
        const auto down = kind->linear({arena, buffers, transformed}, {"down", 4 * width, width});
        const auto dense = static_cast<double>(2 * width * 4 * width);
        EXPECT_NEAR(static_cast<double>(arena.count()) / dense, share, 0.045) << table.dump();
      }
    }
  });
}

TEST(RegistryTest, SelfGuidedTrainingNamesTheKindsThatTakeAGuide) {
  std::vector<std::string> expected;
  for_each_kind([&](const KindEntry& entry) {
    if (entry.make()->takes_guide()) expected.push_back(entry.name);
  });
  EXPECT_FALSE(expected.empty());
  EXPECT_EQ(guided_kinds(), expected);
  ModelConfig model = tiny_config("refused").model;
  resolve(model, 16, 8);
  std::string message;
  try {
    build_model(model, "", "the test", true);
  } catch (const Error& error) {
    message = error.what();
  }
  for (const std::string& name : expected) EXPECT_NE(message.find(name), std::string::npos) << name;
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
    OneLayer one = layer_of(entry);
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
    OneLayer one = layer_of(entry);
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
    OneLayer one = layer_of(entry);
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

}  // namespace registry_test
}  // namespace refract
