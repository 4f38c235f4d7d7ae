#include "formats/hf_config.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/error.h"
#include "support/errors.h"

namespace refract {
namespace hf_config_test {

using nlohmann::json;
using testing::error_of;

json fields_of(ModelConfig config) {
  config.preset.clear();
  Fields fields;
  describe(fields, config);
  return fields.to_json();
}

ModelConfig resolved(const std::string& name) {
  ModelConfig config = preset(name);
  resolve(config, config.vocab_size ? 0 : 65, 0);
  return config;
}

TEST(HfConfigTest, EveryPresetHasAFamily) {
  for (const std::string& name : preset_names()) {
    const HfFamily family = hf_family(resolved(name));
    const char* expected = name.starts_with("structured") ? "gpt_neox"
                           : name.starts_with("clm")      ? "llama"
                                                          : "gpt2";
    EXPECT_EQ(family.name, expected) << name;
    EXPECT_EQ(family.reason, "");
  }
}

TEST(HfConfigTest, EverySettingThatAFamilyLacksIsAReason) {
  auto reason = [](const char* name, auto change) {
    ModelConfig config = resolved(name);
    change(config);
    const HfFamily family = hf_family(config);
    return family.name.empty() ? family.reason : "it is " + family.name;
  };
  auto expect = [](const std::string& text, const char* word) {
    EXPECT_NE(text.find(word), std::string::npos) << text;
  };
  expect(reason("gpt2", [](ModelConfig& c) { c.norm = "rmsnorm"; }), "norm = rmsnorm");
  expect(reason("gpt2", [](ModelConfig& c) { c.hidden_act = "swiglu"; }), "hidden_act = swiglu");
  expect(reason("gpt2", [](ModelConfig& c) { c.mlp_bias = false; }), "without biases");
  expect(reason("gpt2", [](ModelConfig& c) { c.num_key_value_heads = 4; }), "grouped");
  expect(reason("gpt2", [](ModelConfig& c) { c.head_dim = 32; }), "attention width");
  expect(reason("clm-60m", [](ModelConfig& c) { c.norm = "layernorm"; }), "norm = layernorm");
  expect(reason("clm-60m", [](ModelConfig& c) { c.attention_bias = true; }), "but not of o");
  expect(reason("clm-60m", [](ModelConfig& c) { c.scale_attn_by_inverse_layer_idx = true; }),
         "inverse_layer");
  expect(reason("clm-60m", [](ModelConfig& c) { c.hidden_size = 385; }), "does not divide");
  expect(reason("clm-60m", [](ModelConfig& c) { c.head_dim = 128; }), "it is llama");
  expect(reason("clm-60m", [](ModelConfig& c) { c.partial_rotary_factor = 0.5; }),
         "partial_rotary");
  expect(reason("clm-60m", [](ModelConfig& c) { c.parallel_residual = true; }),
         "parallel_residual");
  expect(reason("gpt2", [](ModelConfig& c) { c.parallel_residual = true; }), "parallel_residual");
  const auto neox = [&](auto change) { return reason("structured-s", change); };
  expect(neox([](ModelConfig& c) { c.parallel_residual = true; }), "it is gpt_neox");
  expect(neox([](ModelConfig& c) { c.partial_rotary_factor = 0.25; }), "it is gpt_neox");
  expect(neox([](ModelConfig& c) { c.hidden_act = "gelu_tanh"; }), "it is gpt_neox");
  expect(neox([](ModelConfig& c) { c.attention_bias = c.attention_output_bias = false; }),
         "it is gpt_neox");
  expect(neox([](ModelConfig& c) { c.norm = "rmsnorm"; }), "GPT-NeoX has no norm = rmsnorm");
  expect(neox([](ModelConfig& c) { c.mlp_bias = false; }), "feed-forward without biases");
  expect(neox([](ModelConfig& c) { c.attention_bias = false; }), "but not of o");
  expect(neox([](ModelConfig& c) { c.num_key_value_heads = 4; }), "grouped");
  expect(neox([](ModelConfig& c) { c.head_dim = 32; }), "attention width");
  expect(neox([](ModelConfig& c) { c.qk_norm = true; }), "GPT-NeoX has no qk_norm");
  expect(neox([](ModelConfig& c) { c.scale_attn_by_inverse_layer_idx = true; }), "inverse_layer");
}

TEST(HfConfigTest, RoundTripsThroughEveryFormat) {
  for (const std::string& name : preset_names()) {
    const ModelConfig config = resolved(name);
    EXPECT_EQ(fields_of(config_from_json(config_to_json(config, "refract", "float32"), "x")),
              fields_of(config))
        << name;
    const std::string family = hf_family(config).name;
    if (family.empty()) continue;
    ModelConfig expected = config;
    expected.position_initializer_range =
        family == "gpt2" ? config.initializer_range : 0.01;  // not in HF's settings
    EXPECT_EQ(fields_of(config_from_json(config_to_json(config, family, "float32"), "x")),
              fields_of(expected))
        << name;
  }
}

TEST(HfConfigTest, OurFormatKeepsEverySetting) {
  ModelConfig c = resolved("structured-s");
  c.head_dim = 32;
  c.num_key_value_heads = 4;
  c.attention_output_bias = false;
  c.dropout = 0.25;
  c.rope_scaling = "llama3";
  c.rope_factor = 3;
  c.scale_attn_by_inverse_layer_idx = c.scaled_residual_init = true;
  c.parallel_residual = true;
  c.partial_rotary_factor = 0.5;
  EXPECT_EQ(fields_of(config_from_json(config_to_json(c, "refract", "bfloat16", {1, {2}}), "x")),
            fields_of(c));
}

TEST(HfConfigTest, AnUnknownKeyOfOurFormatNamesTheNearest) {
  json tree = config_to_json(resolved("gpt2"), "refract", "float32");
  tree["hiden_size"] = 5;
  const std::string message = error_of([&] { config_from_json(tree, "some/config.json"); });
  EXPECT_NE(message.find("hiden_size"), std::string::npos) << message;
  EXPECT_NE(message.find("model.hidden_size"), std::string::npos) << message;
}

TEST(HfConfigTest, TokenIdsAreWrittenEvenWhenUnknown) {
  const json without = config_to_json(resolved("gpt2"), "gpt2", "float32");
  EXPECT_TRUE(without.contains("eos_token_id") && without["eos_token_id"].is_null());
  EXPECT_EQ(config_to_json(resolved("gpt2"), "gpt2", "float32", {{}, {7}})["eos_token_id"], 7);
  EXPECT_EQ(config_to_json(resolved("gpt2"), "gpt2", "float32", {{}, {7, 9}})["eos_token_id"],
            json({7, 9}));
  EXPECT_EQ(generation_config_json({3, {7}})["bos_token_id"], 3);
  EXPECT_FALSE(generation_config_json({}).contains("eos_token_id"));
}

TEST(HfConfigTest, SizesThatOverflowAreRefused) {
  json tree = config_to_json(resolved("gpt2"), "gpt2", "float32");
  for (const char* key : {"n_embd", "vocab_size", "n_positions", "n_layer", "n_inner"}) {
    json large = tree;
    large[key] = std::numeric_limits<int64_t>::max();
    const std::string message = error_of([&] { config_from_json(large, "config.json"); });
    EXPECT_NE(message.find("config.json"), std::string::npos) << key << ": " << message;
    EXPECT_NE(message.find("too large"), std::string::npos) << key << ": " << message;
  }
}

TEST(HfConfigTest, Gpt2KeepsADropoutOfEmbeddingsOfItsOwn) {
  ModelConfig config = resolved("gpt2");
  config.dropout = 0.1;
  config.embedding_dropout = 0.25;
  const json tree = config_to_json(config, "gpt2", "float32");
  EXPECT_EQ(tree["embd_pdrop"], 0.25);
  EXPECT_EQ(tree["resid_pdrop"], 0.1);
  const ModelConfig read = config_from_json(tree, "x");
  EXPECT_EQ(read.embedding_dropout, 0.25);
  EXPECT_EQ(read.dropout, 0.1);
  // Where they are one, they stay one when the other is changed.
  config.embedding_dropout = -1;
  EXPECT_EQ(config_from_json(config_to_json(config, "gpt2", "float32"), "x").embedding_dropout, -1);
}

}  // namespace hf_config_test
}  // namespace refract
