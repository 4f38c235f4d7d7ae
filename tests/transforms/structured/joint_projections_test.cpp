// Gate and up as one structured layer: what it computes, holds, takes over, and with a guide.
#include "transforms/structured/joint_projections.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/silu.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "analysis/model_flops.h"
#include "core/error.h"
#include "support/training.h"
#include "transforms/one_layer.h"
#include "transforms/structured/factorization.h"

namespace refract {
namespace joint_projections_test {

using nlohmann::json;
using testing::expect_same;
using testing::normal;

ModelConfig swiglu_model() {
  ModelConfig model = tiny_config("joint").model;
  model.hidden_act = "swiglu";
  model.intermediate_size = 48;
  resolve(model, 16, 8);
  return model;
}

json rule_of(json table, const std::string& match = R"(model\.layers\.1\.mlp\.(gate|up)_proj)") {
  table["match"] = match;
  table["joint"] = true;
  return table;
}

std::vector<json> kinds() {
  return {{{"kind", "low_rank"}, {"rank", 8}},
          {{"kind", "block_dense"}, {"rank", 8}, {"blocks", 2}},
          {{"kind", "block_shuffle"}, {"blocks", 2}}};
}

TransformedModel joint_model(const json& rule, bool self_guided = false) {
  TransformedModel model =
      build_model(swiglu_model(), json::array({rule}).dump(), "the test", self_guided);
  model.decoder->allocate(at::kCPU, at::kDouble, at::kDouble);
  model.decoder->initialize(3);
  return model;
}

// The pair has one first factor, and the model computes with the halves of its product.
TEST(JointSwiglu, IsTheDenseLayerOfItsHalves) {
  for (const json& table : kinds()) {
    SCOPED_TRACE(table.dump());
    const TransformedModel joint = joint_model(rule_of(table));
    ParameterArena& arena = joint.decoder->arena();
    ASSERT_EQ(joint.decoder->transformed().size(), 2u);
    EXPECT_NE(arena.find("model.layers.1.mlp.gate_proj.V.weight"), nullptr);
    EXPECT_EQ(arena.find("model.layers.1.mlp.up_proj.V.weight"), nullptr);
    const auto dense = build_model(swiglu_model(), "", "the test").decoder;
    dense->allocate(at::kCPU, at::kDouble, at::kDouble);
    for (const Parameter& p : arena.parameters()) {
      if (const Parameter* same = dense->arena().find(p.name))
        dense->arena().value(same).copy_(arena.value(&p));
    }
    for (const TransformedLayer& entry : joint.decoder->transformed()) {
      EXPECT_TRUE(entry.layer->computes_merged());
      dense->arena()
          .value(dense->arena().find(entry.spec.name + ".weight"))
          .copy_(entry.layer->merged());
    }
    const at::Tensor tokens = at::arange(16, at::kLong).view({2, 8});
    expect_same(joint.decoder->hidden({}, tokens), dense->hidden({}, tokens));
  }
}

// One group by its formula, with biases, and each member alone.
TEST(JointSwiglu, ComputesGateAndUpFromOneProduct) {
  for (const json& table : kinds()) {
    SCOPED_TRACE(table.dump());
    const ProjectionSpec spec{{{"gate_proj", 12, 8, true}, {"up_proj", 12, 8, true}},
                              Activation::kSwiglu};
    json joint = table;
    joint["joint"] = true;
    const auto kind = make_kind(joint.dump(), "the test");
    ParameterArena arena;
    BufferStore buffers;
    std::vector<TransformedLayer> transformed;
    const Build build{arena, buffers, transformed};
    const auto group =
        make_joint_projections(build, spec, kind->linear(build, joint_spec(spec)), "x");
    arena.allocate(at::kCPU, at::kDouble, at::kDouble);
    arena.initialize(1);
    for (const TransformedLayer& entry : transformed) entry.layer->initialize(1);
    for (const char* name : {"gate_proj.bias", "up_proj.bias"})
      arena.value(arena.find(name)).copy_(normal({8}));
    const at::Tensor x = normal({5, 12});
    const auto product = [&](size_t member) {
      const at::Tensor alone = transformed[member].layer->forward({}, x);
      expect_same(alone, at::linear(x, transformed[member].layer->merged()));
      return alone.add(arena.value(arena.find(transformed[member].spec.name + ".bias")));
    };
    expect_same(group->forward({}, x), at::silu(product(0)).mul(product(1)));
  }
}

TEST(JointSwiglu, TakesOverTheBestFactorsOfBothWeights) {
  for (const json& table : kinds()) {
    SCOPED_TRACE(table.dump());
    const TransformedModel joint = joint_model(rule_of(table));
    const auto& layers = joint.decoder->transformed();
    const at::Tensor gate = normal({48, 32}), up = normal({48, 32});
    EXPECT_EQ(layers[0].layer->take_over(gate), 0);
    const double error = layers[1].layer->take_over(up);
    const at::Tensor merged = at::cat({layers[0].layer->merged(), layers[1].layer->merged()});
    EXPECT_NEAR(error, relative_error(merged, at::cat({gate, up})), 1e-12);
    EXPECT_GT(error, 0.1);
    if (table["kind"] == "low_rank") {
      const auto [u, v] = truncated_svd(at::cat({gate, up}), 8);
      expect_same(merged, u.matmul(v));
    }
    // Again, from a product of its own form: exactly.
    layers[0].layer->take_over(merged.narrow(0, 0, 48));
    EXPECT_LT(layers[1].layer->take_over(merged.narrow(0, 48, 48)), 1e-10);
  }
}

TEST(JointSwiglu, CountsItsFactorsOnce) {
  const TransformedModel joint = joint_model(rule_of(kinds().front()));
  // [R, C] and [2 F, R] in place of two [F, C].
  const double saved = 2.0 * 48 * 32 - 8 * (32 + 2 * 48);
  const ModelConfig config = swiglu_model();
  EXPECT_EQ(forward_flops_per_token(shape_of(config, 8)).ffn -
                forward_flops_per_token(shape_of(*joint.decoder, 8)).ffn,
            2 * saved);
  EXPECT_EQ(joint.plan[0].parameters, 8 * (32 + 2 * 48));
  EXPECT_EQ(joint.plan[0].dense_parameters, 2 * 48 * 32);
}

TEST(JointSwiglu, AGuideStandsBesideThePair) {
  for (const json& table : kinds()) {
    SCOPED_TRACE(table.dump());
    const TransformedModel joint = joint_model(rule_of(table), /*self_guided=*/true);
    ParameterArena& arena = joint.decoder->arena();
    ASSERT_EQ(arena.guides().size(), 1u);
    EXPECT_EQ(arena.guides()[0].shape, (std::vector<int64_t>{96, 32}));
    const at::Tensor tokens = at::arange(16, at::kLong).view({2, 8});
    const at::Tensor plain = joint.decoder->hidden({}, tokens);
    joint.decoder->set_guide(at::full({1}, 0.3, at::kFloat));
    expect_same(joint.decoder->hidden({}, tokens), plain);
    EXPECT_EQ(shape_of(*joint.decoder, 8).ffn_guide_multiplications, 96.0 * 32);
  }
}

TEST(JointSwiglu, TrainsResumesAndDropsItsGuide) {
  RunConfig config = tiny_config("joint_run");
  config.model.hidden_act = "swiglu";
  config.model.intermediate_size = 48;
  config.transform = json::array({rule_of(kinds().front())}).dump();
  config.self_guided.mode = "fixedstep";
  config.self_guided.ratio = 0.5;
  TinyRun whole(config);
  whole.trainer->run();
  EXPECT_FALSE(whole.model->arena().has_guides());
  std::filesystem::remove_all(config.run.dir);
  RunConfig part = config;
  part.checkpoint.permanent = {4};
  TinyRun first(part);
  first.trainer->run();
  const Checkpoints checkpoints(config.run.dir);
  for (const int64_t step : checkpoints.steps()) {
    if (step > 4) std::filesystem::remove_all(checkpoints.path(step));
  }
  TinyRun resumed(config);
  ASSERT_EQ(resumed.trainer->resume(), 4);
  resumed.trainer->run();
  EXPECT_TRUE(whole.model->arena().master().equal(resumed.model->arena().master()));
}

std::string message_of(const ModelConfig& config, const json& rules) {
  try {
    build_model(config, rules.dump(), "the test");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(JointSwiglu, RefusesWhatCanNotBeJoined) {
  const auto says = [](const std::string& message, const char* words) {
    EXPECT_NE(message.find(words), std::string::npos) << message;
  };
  says(message_of(swiglu_model(), json::array({rule_of(kinds().front(), ".*gate_proj")})),
       "one rule must match both");
  ModelConfig gelu = tiny_config("gelu").model;
  gelu.hidden_act = "gelu";
  resolve(gelu, 16, 8);
  says(message_of(gelu, json::array({rule_of(kinds().front(), ".*up_proj")})), "has no gate");
  json inner = kinds().front();
  inner["joint"] = true;
  says(message_of(swiglu_model(),
                  json::array({{{"match", ".*up_proj"}, {"kind", "lora"}, {"over", inner}}})),
       "joins the layers of a rule");
}

}  // namespace joint_projections_test
}  // namespace refract
