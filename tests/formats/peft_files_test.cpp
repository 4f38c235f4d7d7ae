// What is written to and read from a folder of peft, apart from tensors.
#include "formats/peft_files.h"

#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace peft_files_test {

using nlohmann::json;
using testing::error_of;
using testing::TemporaryFolder;

PeftConfig read_back(const TemporaryFolder& folder, const std::string& text) {
  std::ofstream(folder / kAdapterConfig) << text;
  return PeftConfig::read((folder / kAdapterConfig).parent_path());
}

TEST(PeftFilesTest, ModulesAreNamedAsTransformersNamesThem) {
  EXPECT_EQ(peft_module("model.layers.3.self_attn.q_proj", "llama"),
            "model.layers.3.self_attn.q_proj");
  EXPECT_EQ(peft_module("model.layers.12.mlp.up_proj", "gpt2"), "transformer.h.12.mlp.c_fc");
  EXPECT_EQ(peft_module("model.layers.0.self_attn.o_proj", "gpt2"), "transformer.h.0.attn.c_proj");
  EXPECT_EQ(peft_module("model.layers.0.self_attn.q_proj", "gpt2"), "");
  EXPECT_EQ(peft_key("transformer.h.0.mlp.c_fc", kAdapterFactors[0]),
            "base_model.model.transformer.h.0.mlp.c_fc.lora_A.weight");
  EXPECT_EQ(peft_holder("model.layers.12.self_attn.v_proj", "gpt2"),
            "transformer.h.12.attn.c_attn");
  EXPECT_EQ(peft_holder("model.layers.12.self_attn.v_proj", "llama"),
            "model.layers.12.self_attn.v_proj");
}

TEST(PeftFilesTest, WhatIsWrittenReadsBack) {
  const std::vector<PeftAdapter> adapters = {{"transformer.h.0.mlp.c_fc", 3, 6, 0},
                                             {"transformer.h.1.mlp.c_fc", 3, 6, 0},
                                             {"transformer.h.1.mlp.c_proj", 2, 5, 0.1}};
  const std::string text = peft_config(adapters, "base", "gpt2", 2);
  const json tree = json::parse(text);
  EXPECT_EQ(tree["target_modules"], json({"mlp.c_fc", "transformer.h.1.mlp.c_proj"}));
  EXPECT_EQ(tree["base_model_name_or_path"], "base");
  EXPECT_EQ(tree["fan_in_fan_out"], true);
  EXPECT_EQ(tree["lora_dropout"], 0.1);
  const TemporaryFolder folder;
  const PeftConfig read = read_back(folder, text);
  for (const PeftAdapter& adapter : adapters) {
    EXPECT_EQ(read.r(adapter.module), static_cast<double>(adapter.r)) << adapter.module;
    EXPECT_EQ(read.alpha(adapter.module), adapter.alpha) << adapter.module;
  }
}

TEST(PeftFilesTest, PatternsMatchTheEndOfANameAndDefaultsArePefts) {
  const TemporaryFolder folder;
  const PeftConfig read =
      read_back(folder, R"({"peft_type": "LORA", "rank_pattern": {"q_proj": 2, "0\\.v_proj": 4}})");
  EXPECT_EQ(read.r("model.layers.1.self_attn.q_proj"), 2);
  EXPECT_EQ(read.r("model.layers.1.self_attn.big_q_proj"), 8);
  EXPECT_EQ(read.r("layer.0.v_proj"), 4);
  EXPECT_EQ(read.alpha("model.layers.1.self_attn.q_proj"), 8);
}

TEST(PeftFilesTest, RefusesWhatOurAdaptersAreNot) {
  const TemporaryFolder folder;
  EXPECT_NE(error_of([&] { PeftConfig::read(folder / "nowhere"); }).find(kAdapterConfig),
            std::string::npos);
  EXPECT_NE(error_of([&] { read_back(folder, "[]"); }).find("not a JSON object"),
            std::string::npos);
  for (const char* key : {"peft_type", "bias", "use_rslora", "use_dora", "lora_bias"}) {
    const std::string text = json{{key, "other"}}.dump();
    EXPECT_NE(error_of([&] { read_back(folder, text); }).find(key), std::string::npos) << text;
  }
  EXPECT_NO_THROW(read_back(folder, R"({"bias": "none", "use_dora": false, "lora_bias": null})"));
}

// A feature that is not known may change what the adapter computes.
TEST(PeftFilesTest, AKeyThatIsNotKnownMustBeOff) {
  const TemporaryFolder folder;
  for (const json& off : {json(nullptr), json(false), json::object(), json::array()}) {
    EXPECT_NO_THROW(read_back(folder, json{{"of_next_year", off}}.dump())) << off;
    EXPECT_NO_THROW(read_back(folder, json{{"layer_replication", off}}.dump())) << off;
  }
  for (const char* key : {"of_next_year", "alora_invocation_tokens", "layer_replication",
                          "trainable_token_indices", "target_parameters", "modules_to_save"}) {
    for (const json& on : {json(true), json(2), json("x"), json{"lm_head"}, json{{"a", 1}}}) {
      const std::string text = json{{key, on}}.dump();
      EXPECT_NE(error_of([&] { read_back(folder, text); }).find(key), std::string::npos) << text;
    }
  }
  EXPECT_NO_THROW(read_back(folder, R"({"target_modules": ["q_proj"], "layers_to_transform": [0],
      "peft_version": "0.21.2", "megatron_core": "megatron.core", "qalora_group_size": 16})"));
}

TEST(PeftFilesTest, AnInitializationThatChangesTheModelIsRefused) {
  const TemporaryFolder folder;
  for (const char* plain : {"gaussian", "Gaussian", "eva", "orthogonal", "mica"})
    EXPECT_NO_THROW(read_back(folder, json{{"init_lora_weights", plain}}.dump())) << plain;
  EXPECT_NO_THROW(read_back(folder, R"({"init_lora_weights": false})"));
  for (const char* other :
       {"pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "new"}) {
    const std::string error = error_of([&] {
      read_back(folder, json{{"init_lora_weights", other}}.dump());
    });
    EXPECT_NE(error.find(other), std::string::npos) << error;
    // Only what works is advised: peft converts these.
    const bool convertible = std::string(other).starts_with("pissa") ||
                             std::string(other) == "olora" || std::string(other) == "corda" ||
                             std::string(other) == "lora_ga";
    EXPECT_EQ(error.find("path_initial_model_for_weight_conversion") != std::string::npos,
              convertible)
        << error;
  }
}

TEST(PeftFilesTest, TheFirstPatternInTheFilesOrderCounts) {
  const TemporaryFolder folder;
  const PeftConfig wide_first = read_back(folder, R"({"r": 4,
      "rank_pattern": {"q_proj": 2, "layers.0.self_attn.q_proj": 6},
      "alpha_pattern": {"layers.0.self_attn.q_proj": 10, "q_proj": 20}})");
  EXPECT_EQ(wide_first.r("model.layers.0.self_attn.q_proj"), 2);
  EXPECT_EQ(wide_first.r("model.layers.1.self_attn.q_proj"), 2);
  EXPECT_EQ(wide_first.r("model.layers.1.self_attn.v_proj"), 4);
  EXPECT_EQ(wide_first.alpha("model.layers.0.self_attn.q_proj"), 10);
  EXPECT_EQ(wide_first.alpha("model.layers.1.self_attn.q_proj"), 20);
}

TEST(PeftFilesTest, ValuesThatAreNoNumbersAreNamed) {
  const TemporaryFolder folder;
  for (const char* text : {R"({"r": "four"})", R"({"lora_alpha": [1]})", R"({"r": 0})",
                           R"({"rank_pattern": {"q_proj": null}})", R"({"alpha_pattern": [1]})"}) {
    const std::string error = error_of([&] { read_back(folder, text); });
    EXPECT_NE(error.find(kAdapterConfig), std::string::npos) << text;
    EXPECT_EQ(error.find("json.exception"), std::string::npos) << error;
  }
}

}  // namespace peft_files_test
}  // namespace refract
