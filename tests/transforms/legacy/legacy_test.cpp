// The published rule files: what they become as rules of ours.
#include "transforms/legacy/legacy.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/errors.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"
#include "text/regex.h"
#include "transforms/model_builder.h"

namespace refract {
namespace legacy_test {

using nlohmann::json;
using testing::error_of;
using testing::has;
using testing::TemporaryFolder;
using testing::usage_error_of;
using testing::write_text;

// The modules of a Llama of three layers.
std::vector<std::string> modules() {
  ModelConfig config = testing::small_llama();
  config.num_hidden_layers = 3;
  return module_names(config);
}

json rules_of(const std::string& name, const std::string& text) {
  const TemporaryFolder folder;
  write_text(folder / name, text);
  return json::parse(legacy_rules(folder / name, modules()));
}
json toml(const std::string& text) { return rules_of("rules.toml", text); }
json yaml(const std::string& text) { return rules_of("rules.yaml", text); }

std::string message_of(const std::string& name, const std::string& text) {
  return usage_error_of([&] { rules_of(name, text); });
}

// The modules for which a rule decides: the first whose expression is the whole name.
std::vector<std::string> decided_by(const json& rules, size_t rule) {
  std::vector<Regex> expressions;
  for (const json& entry : rules)
    expressions.emplace_back("\\A(?:" + entry["match"].get<std::string>() + ")\\z");
  std::vector<std::string> decided;
  for (const std::string& module : modules()) {
    for (size_t i = 0; i < expressions.size(); ++i) {
      if (!Matcher(expressions[i]).contains(module)) continue;
      if (i == rule) decided.push_back(module);
      break;
    }
  }
  return decided;
}

constexpr const char* kToml = R"(
use_lora = false
[attention]
q_levels = 256
q_lut_min = 0.020040
q_smooth_factor = 0.9
q_init_seed = 0
q_bypass = false
[fc]
q_levels = 128
q_quantiles = [0.001, 0.999]
[lora]
r = 32
lora_alpha = 64
)";

TEST(LegacyTest, ModuleNamesAreThoseOfTheSlots) {
  ASSERT_EQ(modules().size(), 3u * 8);
  EXPECT_EQ(modules()[3], "model.layers.0.self_attn");
  EXPECT_EQ(modules()[7], "model.layers.0.mlp.down_proj");
}

TEST(LegacyTest, TomlTablesBecomeTwoRules) {
  const json rules = toml(kToml);
  ASSERT_EQ(rules.size(), 2u);
  EXPECT_EQ(rules[0]["kind"], "optical");
  EXPECT_EQ(rules[0]["q_lut_min"], 0.02004);
  EXPECT_EQ(rules[0]["q_bypass"], false);
  EXPECT_EQ(decided_by(rules, 0),
            (std::vector<std::string>{"model.layers.0.self_attn", "model.layers.1.self_attn",
                                      "model.layers.2.self_attn"}));
  EXPECT_EQ(decided_by(rules, 1).size(), 3u * 7);
  EXPECT_EQ(rules[1]["q_levels"], 128);
  EXPECT_EQ(rules[1]["q_quantiles"], json({0.001, 0.999}));
}

TEST(LegacyTest, ATomlWithoutQuantilesHasMinimumAndMaximumEverywhere) {
  for (const char* lora : {"false", "true"}) {
    const json rules =
        toml(std::string("use_lora = ") + lora + "\n[attention]\n[fc]\nq_levels = 16\n");
    EXPECT_FALSE(rules[0].contains("q_quantiles"));
    const json& linear = rules[1].contains("over") ? rules[1]["over"] : rules[1];
    EXPECT_EQ(linear["q_levels"], 16);
    EXPECT_FALSE(linear.contains("q_quantiles"));
  }
}

TEST(LegacyTest, TomlWithLoraPutsItOverTheLinearLayers) {
  std::string text = kToml;
  text.replace(text.find("false"), 5, "true");
  const json rules = toml(text);
  EXPECT_EQ(rules[0]["kind"], "optical");
  EXPECT_EQ(rules[1]["kind"], "lora");
  EXPECT_EQ(rules[1]["r"], 32);
  EXPECT_EQ(rules[1]["alpha"], 64);
  EXPECT_EQ(rules[1]["adapter"], "merged");
  EXPECT_EQ(rules[1]["over"],
            json({{"kind", "optical"}, {"q_levels", 128}, {"q_quantiles", {0.001, 0.999}}}));
  const json defaults = toml("use_lora = true\n[attention]\n[fc]\n");
  EXPECT_EQ(defaults[1]["r"], 32);
  EXPECT_EQ(defaults[1]["alpha"], 32);
}

constexpr const char* kFlips = R"(
use_lora = true
[fc]
    w_p_exp = 1.52587890625e-05
    w_p_frac = 3.0517578125e-05
    w_zero_out_t = 1.25
    x_p_frac = 7.62939453125e-06
    x_zero_out_t = 30.0
[lora]
    r = 16
    lora_alpha = 32
)";

TEST(LegacyTest, ATomlOfBitFlipsIsOneRuleForTheLinearLayers) {
  const json rules = toml(kFlips);
  ASSERT_EQ(rules.size(), 1u);
  EXPECT_EQ(decided_by(rules, 0).size(), 3u * 7);
  EXPECT_EQ(rules[0]["kind"], "lora");
  EXPECT_EQ(rules[0]["adapter"], "merged");
  EXPECT_EQ(rules[0]["r"], 16);
  // What is left out does not happen, though the kind's default is the published rate.
  EXPECT_EQ(rules[0]["over"], json({{"kind", "bit_flip"},
                                    {"x_p_exp", 0.0},
                                    {"x_p_frac", 0x1p-17},
                                    {"x_zero_out_t", 30.0},
                                    {"w_p_exp", 0x1p-16},
                                    {"w_p_frac", 0x1p-15},
                                    {"w_zero_out_t", 1.25}}));
  const json without = toml("use_lora = false\n[fc]\nx_p_exp = 0.25\nx_seed_exp = 0\n");
  ASSERT_EQ(without.size(), 1u);
  EXPECT_EQ(without[0]["kind"], "bit_flip");
  EXPECT_EQ(without[0]["x_p_exp"], 0.25);
  EXPECT_FALSE(without[0].contains("x_seed_exp"));
  // Their baseline: adapters over layers without flips.
  EXPECT_EQ(toml("use_lora = true\n[fc]\n[lora]\nr = 32\n")[0]["over"]["w_p_exp"], 0.0);
  // A file of optical layers still needs its attention.
  EXPECT_TRUE(has(message_of("rules.toml", "[fc]\nq_levels = 4\n"), "[attention] is missing"));
}

TEST(LegacyTest, AYamlOfBitFlipsDecidesForLinearLayersAlone) {
  const json all = yaml(R"(
use_regex: true
transform_flavor: fc
layer_name_to_config:
  default:
    w_p_exp: 7.62939453125e-06
    w_p_frac: null
    w_seed_exp: 0
    w_seed_frac: 0
    w_zero_out_t: 1.25
    x_seed_exp: 0
)");
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all[0]["kind"], "bit_flip");
  EXPECT_EQ(all[0]["w_p_exp"], 0x1p-17);
  EXPECT_EQ(all[0]["w_p_frac"], 0.0);
  EXPECT_EQ(all[0]["x_p_exp"], 0.0);
  EXPECT_EQ(decided_by(all, 0).size(), 3u * 7);
  for (const std::string& name : decided_by(all, 0)) EXPECT_FALSE(name.ends_with("self_attn"));
  const json some = yaml(R"(
transform_flavor: fc
use_regex: true
layer_name_to_config:
  'layers\.\d+\.feed_forward\.w1':
    x_p_exp: 0.0001
  'layers\.0\..*': null
  default:
    w_p_frac: 0.000244140625
)");
  ASSERT_EQ(some.size(), 3u);
  EXPECT_EQ(decided_by(some, 0), (std::vector<std::string>{"model.layers.0.mlp.gate_proj",
                                                           "model.layers.1.mlp.gate_proj",
                                                           "model.layers.2.mlp.gate_proj"}));
  EXPECT_EQ(some[1]["kind"], "none");
  EXPECT_EQ(decided_by(some, 1).size(), 6u);
  EXPECT_EQ(some[2]["w_p_frac"], 0x1p-12);
  EXPECT_TRUE(has(message_of("rules.yaml", "transform_flavor: attn\nlayer_name_to_config: {}\n"),
                  "transform_flavor takes fc"));
  EXPECT_TRUE(
      has(message_of("rules.yaml",
                     "transform_flavor: fc\nlayer_name_to_config: {lm_head: {x_p_exp: 0.1}, "
                     "default: null}\n"),
          "the model's head"));
}

constexpr const char* kYaml = R"(
use_regex: true
layer_name_to_config:
  ? 'model\.layers\.\d+\.self_attn'
  : &attn_cfg
    q_levels: 256
    q_lut_min: 0.020040
    q_quantiles: null
    q_bypass: false
  'model\.layers\.0\..*': null
  'model\.layers\.\d+\.mlp\.(gate|up)_proj': &fc_cfg
    <<: *attn_cfg
    q_levels: 64
    q_quantiles: [0.01, 0.99]
  'model\.layers\.\d+\..*_proj':
    <<: [*fc_cfg, *attn_cfg]
    q_smooth_factor: 0.5
  lm_head: null
)";

TEST(LegacyTest, YamlKeepsItsOrderAndResolvesAnchorsAndMergeKeys) {
  const json rules = yaml(kYaml);
  ASSERT_EQ(rules.size(), 4u);
  EXPECT_EQ(rules[0], json({{"match", R"(model\.layers\.\d+\.self_attn)"},
                            {"kind", "optical"},
                            {"q_levels", 256},
                            {"q_lut_min", 0.02004},
                            {"q_bypass", false}}));
  EXPECT_EQ(rules[1], json({{"match", R"(model\.layers\.0\..*)"}, {"kind", "none"}}));
  EXPECT_EQ(rules[2]["q_levels"], 64);
  EXPECT_EQ(rules[2]["q_lut_min"], 0.02004);
  EXPECT_EQ(rules[2]["q_quantiles"], json({0.01, 0.99}));
  EXPECT_EQ(rules[3]["q_levels"], 64);  // of merged maps the earlier one wins
  EXPECT_EQ(rules[3]["q_smooth_factor"], 0.5);
  EXPECT_EQ(decided_by(rules, 0).size(), 3u);
  EXPECT_EQ(decided_by(rules, 1).size(), 7u);
  EXPECT_EQ(decided_by(rules, 2).size(), 4u);
  EXPECT_EQ(decided_by(rules, 3).size(), 10u);
}

TEST(LegacyTest, TorchtitanNamesAreTranslated) {
  const json rules = yaml(R"(
use_regex: true
layer_name_to_config:
  'layers\.(0|2)\.feed_forward\.(w1|w3)': {q_levels: 16}
  'layers\.\d+\.feed_forward\.w\d': {q_levels: 32}
  'layers\.\d+\.attention': {q_levels: 64}
  'layers\.1\.attention\.(wq|wo)': null
  'output': null
  default: {q_levels: 128}
)");
  ASSERT_EQ(rules.size(), 5u);
  EXPECT_EQ(rules[0]["match"], R"(model\.layers\.(0|2)\.(mlp\.gate_proj|mlp\.up_proj))");
  EXPECT_EQ(decided_by(rules, 0).size(), 4u);
  EXPECT_EQ(decided_by(rules, 1).size(), 5u);
  EXPECT_EQ(rules[2]["match"], R"(model\.layers\.\d+\.self_attn)");
  EXPECT_EQ(decided_by(rules, 3), (std::vector<std::string>{"model.layers.1.self_attn.q_proj",
                                                            "model.layers.1.self_attn.o_proj"}));
  EXPECT_EQ(rules[3]["kind"], "none");
  EXPECT_EQ(decided_by(rules, 4).size(), 10u);  // k and v of all layers, q and o of two
  EXPECT_EQ(rules[4]["q_levels"], 128);
}

TEST(LegacyTest, WithoutUseRegexANameIsAName) {
  const json rules = yaml(R"(
use_regex: false
layer_name_to_config:
  model.layers.1.self_attn: {q_levels: 4}
  layers.2.feed_forward.w2: {q_bypass: true}
  default: null
)");
  ASSERT_EQ(rules.size(), 3u);
  EXPECT_EQ(rules[0]["match"], R"(model\.layers\.1\.self_attn)");
  EXPECT_EQ(rules[1]["match"], R"(model\.layers\.2\.mlp\.down_proj)");
  EXPECT_EQ(rules[1]["q_bypass"], true);
  EXPECT_EQ(rules[2]["kind"], "none");
  EXPECT_EQ(decided_by(rules, 2).size(), 22u);
}

// mase-triton's OpticalTransformerLinear.from_linear, and the attentions' from_pretrained of either
// naming.
TEST(LegacyTest, YamlWithoutQuantilesTakesWhatItsReaderTakes) {
  const json quantiles = {0.001, 0.999};
  const json facing = yaml("layer_name_to_config:\n  default: {q_levels: 8}\n");
  ASSERT_EQ(facing.size(), 2u);
  EXPECT_FALSE(facing[0].contains("q_quantiles"));
  EXPECT_EQ(decided_by(facing, 0),
            (std::vector<std::string>{"model.layers.0.self_attn", "model.layers.1.self_attn",
                                      "model.layers.2.self_attn"}));
  EXPECT_EQ(facing[1]["q_quantiles"], quantiles);
  EXPECT_EQ(decided_by(facing, 1).size(), 3u * 7);
  const json titan = yaml(R"(
use_regex: true
layer_name_to_config:
  'layers\.\d+\.attention': {q_levels: 8}
  default: {q_levels: 4}
)");
  ASSERT_EQ(titan.size(), 2u);
  for (const json& rule : titan) EXPECT_EQ(rule["q_quantiles"], quantiles);
  const json none = yaml("layer_name_to_config:\n  default: {q_levels: 8, q_quantiles: null}\n");
  ASSERT_EQ(none.size(), 1u);
  EXPECT_FALSE(none[0].contains("q_quantiles"));
  const json merged =
      yaml("a: &a {q_quantiles: null}\nlayer_name_to_config:\n  default: {<<: *a, q_levels: 8}\n");
  ASSERT_EQ(merged.size(), 1u);
  EXPECT_FALSE(merged[0].contains("q_quantiles"));
}

TEST(LegacyTest, ScalarsHaveTheirTypes) {
  const json rules = yaml(
      "layer_name_to_config:\n  default: {a: 1, b: 1e-3, c: 'true', d: +2, e: text, f: True}\n");
  EXPECT_EQ(rules[0]["a"], 1);
  EXPECT_EQ(rules[0]["b"], 1e-3);
  EXPECT_EQ(rules[0]["c"], "true");
  EXPECT_EQ(rules[0]["d"], 2);
  EXPECT_EQ(rules[0]["e"], "text");
  EXPECT_EQ(rules[0]["f"], true);
}

TEST(LegacyTest, AWiderExpressionPassesOverTheHead) {
  const json rules = yaml("use_regex: true\nlayer_name_to_config:\n  '.*': {q_levels: 8}\n");
  ASSERT_EQ(rules.size(), 2u);  // attentions and linear layers differ in what they take unsaid
  EXPECT_EQ(decided_by(rules, 0).size() + decided_by(rules, 1).size(), modules().size());
}

TEST(LegacyTest, MistakesAreOneLineThatSaysWhere) {
  const auto of_yaml = [](const std::string& entries) {
    return message_of("bad.yaml", "use_regex: true\nlayer_name_to_config:\n" + entries);
  };
  EXPECT_TRUE(has(of_yaml("  'model.*mlp.*': null\n"),
                  "no entry matches 'model.layers.0.self_attn.q_proj'"));
  EXPECT_TRUE(has(of_yaml("  'lm_head': {q_levels: 2}\n  default: null\n"), "never transformed"));
  EXPECT_TRUE(has(of_yaml("  'output': {q_levels: 2}\n  default: null\n"), "line 3"));
  EXPECT_TRUE(
      has(of_yaml("  'model\\.layers\\.7\\..*': {a: 1}\n  default: null\n"), "matches no module"));
  EXPECT_TRUE(has(of_yaml("  '(': {a: 1}\n"), "not a regular expression"));
  EXPECT_TRUE(has(of_yaml("  x: {a: 1}\n  x: {a: 2}\n"), "appears twice"));
  EXPECT_TRUE(has(of_yaml("  default: 3\n"), "takes a map of parameters"));
  EXPECT_TRUE(has(of_yaml("  default: {<<: 3}\n"), "<< takes a map"));
  EXPECT_TRUE(has(message_of("bad.yaml", "layer_names: 1\n"), "did you mean"));
  EXPECT_TRUE(
      has(message_of("bad.yaml", "use_regex: maybe\nlayer_name_to_config: {}"), "true or false"));
  EXPECT_TRUE(has(message_of("bad.yaml", "a: [\n"), "bad.yaml, line 2"));
  EXPECT_TRUE(has(message_of("bad.yaml", "use_regex: true\n"), "layer_name_to_config is missing"));
  EXPECT_TRUE(has(message_of("bad.toml", "[fc]\n[attention]\n[lorra]\n"), "did you mean 'lora'"));
  EXPECT_TRUE(has(message_of("bad.toml", "[fc]\n"), "the table [attention] is missing"));
  EXPECT_TRUE(has(message_of("bad.toml", "use_lora = true\n[fc]\n[attention]\n[lora]\nalpha = 1\n"),
                  "lora_alpha"));
  EXPECT_TRUE(has(message_of("bad.json", "{}"), ".toml, .yaml or .yml"));
  const TemporaryFolder folder;
  EXPECT_TRUE(has(error_of([&] { legacy_rules(folder / "none.yaml", modules()); }), "none.yaml"));
}

TEST(LegacyTest, AliasesDoNotGrowWithoutBound) {
  // Nine maps of ten names each for the one before: 10^9 values, or as many merged keys.
  std::string lists = "a0: &a0 {x: 1}\n", merges = lists;
  for (int i = 1; i <= 9; ++i) {
    std::string all;
    for (int k = 0; k < 10; ++k) all += fmt::format("{}*a{}", k == 0 ? "" : ", ", i - 1);
    lists += fmt::format("a{0}: &a{0} {{x: [{1}]}}\n", i, all);
    merges += fmt::format("a{0}: &a{0} {{<<: [{1}]}}\n", i, all);
  }
  const std::string entry = "layer_name_to_config:\n  default: ";
  EXPECT_TRUE(has(message_of("bomb.yaml", lists + entry + "{y: *a9}\n"), "aliases"));
  EXPECT_TRUE(has(message_of("bomb.yaml", merges + entry + "*a9\n"), "aliases"));
  EXPECT_TRUE(has(message_of("self.yaml", entry + "&a {x: [*a]}\n"), "name itself"));
  EXPECT_TRUE(has(message_of("self.yaml", entry + "&a {<<: *a}\n"), "name itself"));
}

TEST(LegacyTest, ARecipeNamesTheFileAndNothingBesideIt) {
  const auto message = [](const std::string& transform) {
    return error_of([&] { build_model(testing::small_llama(), transform, "recipe.toml"); });
  };
  EXPECT_TRUE(has(message(R"({"legacy": "a.toml", "b": 1})"), "stands for all rules"));
  EXPECT_TRUE(has(message(R"({"legacy": 3})"), "path"));
  const TemporaryFolder folder;
  write_text(folder / "whole.yaml", "layer_name_to_config: {default: null}\n");
  const json rules = {{"legacy", folder.str("whole.yaml")}};
  const TransformedModel model = build_model(testing::small_llama(), rules.dump(), "recipe.toml");
  ASSERT_EQ(model.plan.size(), 2u);
  EXPECT_EQ(model.plan[0].modules.size(), 16u);
  EXPECT_TRUE(has(transforms_toml(model.rules, model.plan), "kind = \"none\""));
}

}  // namespace legacy_test
}  // namespace refract
