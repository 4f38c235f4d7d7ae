#include "formats/hf_config.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

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
  expect(reason("clm-60m", [](ModelConfig& c) { c.attention_output_bias = true; }), "but not of o");
  expect(reason("clm-60m", [](ModelConfig& c) { c.attention_bias = true; }), "it is qwen2");
  expect(reason("clm-60m", [](ModelConfig& c) { c.qk_norm = true; }), "it is qwen3");
  expect(reason("clm-60m", [](ModelConfig& c) { c.sliding_window = 100; }), "it is mistral");
  expect(reason("clm-60m", [](ModelConfig& c) { c.rotary_interleaved = true; }),
         "rotary_interleaved");
  expect(reason("clm-60m", [](ModelConfig& c) { c.scale_attn_by_inverse_layer_idx = true; }),
         "inverse_layer");
  expect(reason("clm-60m", [](ModelConfig& c) { c.hidden_size = 385, c.mlp_bias = true; }),
         "does not divide");
  expect(reason("clm-60m", [](ModelConfig& c) { c.sliding_window = 100, c.mlp_bias = true; }),
         "Mistral has no biases in the feed-forward");
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
  c.sliding_window = 64;
  c.layer_types.assign(static_cast<size_t>(c.num_hidden_layers), "sliding_attention");
  c.layer_types.back() = "full_attention";
  EXPECT_EQ(fields_of(config_from_json(config_to_json(c, "refract", "bfloat16", {1, {2}}), "x")),
            fields_of(c));
}

json qwen2(const json& more) {
  json tree = config_to_json(resolved("clm-60m"), "llama", "float32");
  tree["model_type"] = "qwen2";
  tree.update(more);
  return tree;
}

TEST(HfConfigTest, WindowsOfQwen) {
  const auto windows = [](const json& more) {
    const ModelConfig c = config_from_json(qwen2(more), "x");
    std::vector<int64_t> all;
    for (int64_t i = 0; i < 4; ++i) all.push_back(c.window_of(i));
    return all;
  };
  using All = std::vector<int64_t>;
  const json three = {{"sliding_window", 64},
                      {"use_sliding_window", true},
                      {"num_hidden_layers", 4},
                      {"max_window_layers", 3}};
  EXPECT_EQ(windows(three), (All{0, 0, 0, 64}));
  json changed = three;
  changed["use_sliding_window"] = false;  // as nearly every Qwen2 has it
  EXPECT_EQ(windows(changed), (All{0, 0, 0, 0}));
  changed = three;
  changed["max_window_layers"] = 0;
  EXPECT_EQ(windows(changed), (All{64, 64, 64, 64}));
  changed["max_window_layers"] = 28;
  EXPECT_EQ(windows(changed), (All{0, 0, 0, 0}));
  changed = three;
  changed["layer_types"] = {"sliding_attention", "full_attention", "sliding_attention",
                            "full_attention"};  // comes before max_window_layers
  EXPECT_EQ(windows(changed), (All{64, 0, 64, 0}));
  changed["use_sliding_window"] = false;
  EXPECT_TRUE(
      testing::has(error_of([&] { config_from_json(qwen2(changed), "x"); }), "layer_types"));
  changed = three;
  changed["num_hidden_layers"] = int64_t{1} << 40;
  EXPECT_TRUE(
      testing::has(error_of([&] { config_from_json(qwen2(changed), "x"); }), "num_hidden_layers"));
}

TEST(HfConfigTest, FamiliesOfLlamasShapeRoundTrip) {
  for (const char* family : {"mistral", "qwen2", "qwen3"}) {
    ModelConfig c = resolved("clm-60m");
    c.head_dim = 96;
    c.sliding_window = 64;
    c.attention_bias = family == std::string("qwen2");
    c.qk_norm = family == std::string("qwen3");
    c.rope_scaling = "yarn";
    c.rope_factor = 4;
    c.rope_original_max_position_embeddings = 512;
    c.rope_beta_fast = 16;
    c.rope_truncate = false;
    c.rope_attention_factor = 1.25;
    if (family != std::string("mistral")) {
      c.layer_types.assign(static_cast<size_t>(c.num_hidden_layers), "sliding_attention");
      c.layer_types[1] = "full_attention";
    }
    EXPECT_EQ(hf_family(c).name, family);
    EXPECT_EQ(fields_of(config_from_json(config_to_json(c, family, "float32"), "x")), fields_of(c))
        << family;
  }
}

TEST(HfConfigTest, YarnIsReadAsTransformersDoes) {
  const auto read = [](const json& rope, const json& more = json::object()) {
    json tree = qwen2(more);
    tree["rope_scaling"] = rope;
    return config_from_json(tree, "x");
  };
  json rope = {{"type", "yarn"}, {"factor", 4.0}, {"beta_fast", 0}};
  ModelConfig c = read(rope);
  EXPECT_EQ(c.rope_original_max_position_embeddings, c.max_position_embeddings);
  EXPECT_EQ(c.rope_beta_fast, 32);  // 0 stands for the usual
  EXPECT_EQ(c.longest(), 4 * c.max_position_embeddings);
  rope["original_max_position_embeddings"] = 512;
  EXPECT_EQ(read(rope).rope_original_max_position_embeddings, 512);
  EXPECT_EQ(
      read(rope, {{"original_max_position_embeddings", 256}}).rope_original_max_position_embeddings,
      256);
  rope["factor"] = nullptr;
  EXPECT_EQ(read(rope).rope_factor, 4);  // 2048 / 512
  rope["mscale"] = 2.0;
  rope["mscale_all_dim"] = 0.5;
  EXPECT_NEAR(read(rope).rope_attention_factor,
              (0.2 * std::log(4.0) + 1) / (0.05 * std::log(4.0) + 1), 1e-12);
  rope["attention_factor"] = -1.0;
  EXPECT_TRUE(testing::has(error_of([&] { read(rope); }), "attention_factor"));
  const json nested = {{"full_attention", {{"rope_type", "default"}}}};
  EXPECT_TRUE(testing::has(error_of([&] { read(nested); }), "full_attention"));
}

TEST(HfConfigTest, AnUnknownFamilyIsRefusedWithThoseThatThereAre) {
  testing::expect_error(
      [&] {
        config_from_json({{"model_type", "gemma3"}}, "c.json");
      },
      {"c.json", "gemma3", "gpt2, llama, mistral, qwen2, qwen3, gpt_neox"});
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
