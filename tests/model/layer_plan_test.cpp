// The plan of a layer by hand, and that the decoder is what its plan says.
#include "model/layer_plan.h"

#include <gtest/gtest.h>

#include <cmath>

#include "support/small_models.h"

namespace refract {
namespace layer_plan_test {

using Names = std::vector<std::string>;

Names member_names(const ProjectionSpec& spec) {
  Names names;
  for (const LinearSpec& member : spec.members) names.push_back(member.name);
  return names;
}

TEST(LayerPlanTest, IsTheSettingsOfALlamaByHand) {
  const LayerPlan plan = layer_plan(testing::small_llama(), 1);  // C 8, F 12, H 4, K 2, D 4
  EXPECT_EQ(plan.input_norm.name, "model.layers.1.input_layernorm");
  EXPECT_EQ(plan.input_norm.width, 8);
  EXPECT_TRUE(plan.input_norm.rms);
  EXPECT_EQ(member_names(plan.qkv),
            (Names{"model.layers.1.self_attn.q_proj", "model.layers.1.self_attn.k_proj",
                   "model.layers.1.self_attn.v_proj"}));
  EXPECT_EQ(output_width(plan.qkv), 4 * 4 + 2 * 2 * 4);
  EXPECT_EQ(dense_multiplications(plan.qkv), 8 * 32);
  EXPECT_EQ(plan.rotated_heads, 6);
  EXPECT_EQ(plan.attention.scale, 0.5);
  EXPECT_EQ(plan.attention.layer, 1);
  EXPECT_EQ(plan.output.members[0].in_features, 16);
  EXPECT_EQ(plan.output.members[0].out_features, 8);
  EXPECT_FALSE(plan.output.members[0].bias);
  EXPECT_EQ(plan.up.activation, Activation::kSwiglu);
  EXPECT_EQ(output_width(plan.up), 24);
  EXPECT_EQ(plan.down.members[0].in_features, 12);
  EXPECT_TRUE(plan.extras.empty());
}

TEST(LayerPlanTest, ScalesByLayerAndByDepth) {
  ModelConfig config = testing::small_gpt2();  // C 8, H 2, two layers
  config.scale_attn_by_inverse_layer_idx = config.scaled_residual_init = true;
  const LayerPlan plan = layer_plan(config, 1);
  EXPECT_EQ(plan.attention.scale, 1 / std::sqrt(4.0) / 2);
  EXPECT_EQ(plan.output.members[0].init_std, 0.02 / std::sqrt(4.0));
  EXPECT_EQ(plan.down.members[0].init_std, 0.02 / std::sqrt(4.0));
  EXPECT_EQ(plan.up.members[0].init_std, 0.02);
  EXPECT_EQ(plan.rotated_heads, 0);
  EXPECT_EQ(plan.up.activation, Activation::kGeluTanh);
}

TEST(LayerPlanTest, ModuleNamesAreInTheOrderOfTheModel) {
  ModelConfig config = testing::small_llama();
  config.num_hidden_layers = 1;
  const std::string layer = "model.layers.0.";
  EXPECT_EQ(module_names(model_plan(config)),
            (Names{layer + "self_attn.q_proj", layer + "self_attn.k_proj",
                   layer + "self_attn.v_proj", layer + "self_attn", layer + "self_attn.o_proj",
                   layer + "mlp.gate_proj", layer + "mlp.up_proj", layer + "mlp.down_proj"}));
}

TEST(LayerPlanTest, UnknownExtrasAreNamedOnce) {
  ModelPlan plan = model_plan(testing::small_gpt2());
  EXPECT_TRUE(unknown_extras(plan, {}).empty());
  plan.layers[0].extras = {"known", "new"};
  plan.layers[1].extras = {"new", "newer"};
  EXPECT_EQ(unknown_extras(plan, {"known"}), (Names{"new", "newer"}));
}

// The decoder declares each matrix of the plan, and no other.
TEST(LayerPlanTest, TheDecodersMatricesAreThePlans) {
  for (const auto& [name, config] : testing::every_setting()) {
    const Decoder decoder(config, DenseFactory());
    int64_t planned = head_of(decoder.plan()).rows * head_of(decoder.plan()).width;
    if (decoder.plan().head) planned += decoder.plan().tokens.rows * decoder.plan().tokens.width;
    if (decoder.plan().positions)
      planned += decoder.plan().positions->rows * decoder.plan().positions->width;
    for (const LayerPlan& layer : decoder.plan().layers) {
      for (const ProjectionSpec* group : projections_of(layer))
        planned += dense_multiplications(*group);
    }
    int64_t declared = 0;
    for (const Parameter& parameter : decoder.arena().parameters())
      declared += parameter.shape.size() > 1 ? parameter.numel() : 0;
    EXPECT_EQ(declared, planned) << name;
  }
}

TEST(LayerPlanTest, DropoutOfEmbeddingsFollowsUnlessItIsSet) {
  ModelConfig config = testing::small_gpt2();
  config.dropout = 0.2;
  EXPECT_EQ(model_plan(config).dropout, 0.2);
  config.embedding_dropout = 0;
  EXPECT_EQ(model_plan(config).dropout, 0);
  EXPECT_EQ(model_plan(config).layers[0].dropout, 0.2);
}

TEST(LayerPlanTest, TorchtitansStartGrowsNarrowWithDepth) {
  ModelConfig config = testing::small_llama();  // C 8
  config.init_scheme = "torchtitan";
  const ModelPlan plan = model_plan(config);
  EXPECT_EQ(plan.tokens.init_std, 1);
  EXPECT_EQ(plan.tokens.init_cut, 0);
  EXPECT_EQ(plan.head->init_std, 1 / std::sqrt(8.0));
  EXPECT_EQ(plan.head->init_cut, 3 / std::sqrt(8.0));
  EXPECT_EQ(plan.layers[1].up.members[0].init_std, 0.02);
  EXPECT_EQ(plan.layers[1].up.members[1].init_std, 0.02 / std::sqrt(4.0));
  EXPECT_EQ(plan.layers[0].down.members[0].init_std, 0.02 / std::sqrt(2.0));
  config.tie_word_embeddings = true;  // then the head's draw is the one that stays
  EXPECT_EQ(model_plan(config).tokens.init_cut, 3 / std::sqrt(8.0));
}

}  // namespace layer_plan_test
}  // namespace refract
