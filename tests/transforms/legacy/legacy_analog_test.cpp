// Configurations of other programs for in-memory computing: what they become as rules of ours.
#include "transforms/legacy/legacy_analog.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>

#include "support/errors.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"
#include "transforms/kind.h"
#include "transforms/legacy/legacy.h"
#include "transforms/model_builder.h"

namespace refract {
namespace legacy_analog_test {

using nlohmann::json;
using testing::expect_error;
using testing::TemporaryFolder;
using testing::write_text;

json rules_of(const std::string& text) {
  const TemporaryFolder folder;
  write_text(folder / "tiles.yaml", text);
  return json::parse(legacy_rules(folder / "tiles.yaml", module_names(testing::small_llama())));
}

// The only rule, which makes a kind.
json rule_of(const std::string& text) {
  const json rules = rules_of(text);
  EXPECT_EQ(rules.size(), 1U);
  json table = rules[0];
  EXPECT_EQ(table["match"], R"(model\.layers\.\d+\.(self_attn|mlp)\.\w+_proj)");
  table.erase("match");
  EXPECT_EQ(make_kind(table.dump(), "the test")->name(), "analog");
  return table;
}

void expect_settings(const json& rule, const json& expected) {
  for (const auto& [key, value] : expected.items())
    EXPECT_EQ(rule.value(key, json()), value) << key;
}

// The three files of experiments/llm-cim/configs, as they are.
TEST(LegacyAnalog, ReadsNewComputeBenchsTiles) {
  const std::string conv = "conv2d:\n  config:\n    tile_type: \"pcm\"\n    core_size: 16\n\n";
  const json sram = rule_of("by: \"type\"\n" + conv +
                            "linear:\n  config:\n    tile_type: \"digital\"\n    core_size: 64\n"
                            "    rescale_dim: \"vector\"\n    x_quant_type: \"e4m3\"\n"
                            "    weight_quant_type: \"e4m3\"\n");
  expect_settings(sram, {{"preset", "sram"},
                         {"tile_rows", 64},
                         {"x_format", "e4m3"},
                         {"w_format", "e4m3"},
                         {"product_noise", nullptr}});
  const json reram = rule_of("by: \"type\"\n" + conv +
                             "linear:\n  config:\n    tile_type: \"reram\"\n    core_size: 256\n"
                             "    num_bits: 3\n    noise_magnitude: 0.1\n");
  expect_settings(reram, {{"preset", "gaussian"},
                          {"tile_rows", 256},
                          {"x_bits", 3},
                          {"w_noise", 0.1},
                          {"w_noise_per", "tile"},
                          {"adc_bits", 0}});
  const json pcm = rule_of("by: \"type\"\n" + conv +
                           "linear:\n  config:\n    tile_type: \"pcm\"\n    core_size: 256\n"
                           "    num_bits: 8\n    programming_noise: true\n    read_noise: false\n"
                           "    ir_drop: false\n    out_noise: false\n");
  expect_settings(pcm, {{"preset", "pcm"},
                        {"x_bits", 8},
                        {"adc_bits", 8},
                        {"adc_range", "vector"},
                        {"out_bound", 10},
                        {"programming_noise", 5.0},
                        {"device_noise", nullptr},
                        {"train_programming", true},
                        {"read_noise", nullptr},
                        {"out_noise", 0}});
}

TEST(LegacyAnalog, PcmNoiseIsScaledByItsLargestConductance) {
  const json rule = rule_of(
      "by: type\nlinear:\n  config: {tile_type: pcm, gmax: 4, read_noise: true, ir_drop: true,"
      " out_noise: true, num_bits: 6}\n");
  expect_settings(rule, {{"tile_rows", 256},
                         {"x_bits", 6},
                         {"ir_drop", 4.0},
                         {"out_noise", 0.01},
                         {"preset", nullptr}});
  EXPECT_NEAR(rule["read_noise"].get<double>(), 0.0175 / 2, 1e-12);
}

TEST(LegacyAnalog, NamesAreThoseOfModules) {
  const json rules = rules_of(
      "by: name\nmodel.layers.0.mlp.up_proj:\n  config: {tile_type: original}\n"
      "model.layers.1.mlp.up_proj:\n  config: {tile_type: digital, approximate_mode: true}\n");
  ASSERT_EQ(rules.size(), 2U);
  EXPECT_EQ(rules[0]["kind"], "none");
  EXPECT_EQ(rules[0]["match"], R"(model\.layers\.0\.mlp\.up_proj)");
  EXPECT_EQ(rules[1]["product_noise"], 0.053);
}

// The configuration of its example for language models.
constexpr const char* kLightning = R"(
general:
  run_name: my-run-name
rpu_config:
  clip_sigma: 2.5
  clip_type: gaussian
  forward_inp_res: 254
  forward_out_noise: 0.0
  forward_out_noise_per_channel: false
  mapping_max_input_size: -1
  modifier_enable_during_test: false
  modifier_res: -1
  modifier_std_dev: 0.023
  modifier_type: add_gauss
  input_range_decay: 0.001
  input_range_enable: true
  input_range_fast_mode: false
  input_range_init_from_data: 500
  input_range_init_std_alpha: 3.0
  input_range_init_value: 3.0
  input_range_init_with_max: false
  input_range_input_min_percentage: 0.95
  input_range_learn_input_range: true
)";

TEST(LegacyAnalog, ReadsAihwkitLightningsConfiguration) {
  const json rule = rule_of(kLightning);
  expect_settings(rule, {{"x_bits", 8},
                         {"x_range", "learned"},
                         {"x_init", 500},
                         {"x_decay", 0.001},
                         {"w_clip", 2.5},
                         {"w_noise", 0.023},
                         {"w_noise_per", "tile"},
                         {"tile_rows", 0},
                         {"tile_columns", 0},
                         {"adc_bits", 0},
                         {"out_noise", 0.0},
                         {"preset", nullptr}});
  const json other = rule_of(
      "rpu_config:\n  mapping_max_input_size: 512\n  forward_inp_res: 0.00793650793650794\n"
      "  forward_out_noise: 0.02\n  forward_out_noise_per_channel: true\n  forward_out_res: 254\n"
      "  forward_out_bound: 12\n  input_range_enable: true\n  input_range_dynamic: true\n"
      "  modifier_type: add_gauss_channel\n  modifier_std_dev: 0.05\n"
      "  modifier_enable_during_test: true\n");
  expect_settings(other, {{"tile_rows", 512},
                          {"x_bits", 7},
                          {"x_range", "dynamic"},
                          {"w_scale", "column"},
                          {"out_bound", 12.0},
                          {"adc_bits", 8},
                          {"preset", "gaussian"},
                          {"w_noise_per", "column"}});
}

TEST(LegacyAnalog, RefusesWhatHasNoLikeByName) {
  const auto refuses = [](const std::string& text, std::initializer_list<std::string> words) {
    expect_error([&] { rules_of(text); }, words);
  };
  const std::string linear = "by: type\nlinear:\n  config: ";
  refuses(linear + "{tile_type: flash}\n", {"tiles.yaml", "flash", "digital, reram, pcm"});
  refuses(linear + "{tile_type: pcm, programing_noise: true}\n",
          {"programing_noise", "programming_noise"});
  refuses(linear + "{tile_type: reram, weight_noise: 0.1}\n", {"noise_magnitude"});
  refuses(linear + "{tile_type: pcm, gmax: high}\n", {"gmax"});
  refuses("by: type\nconv2d:\n  config: {tile_type: pcm}\n", {"linear"});
  refuses("by: size\n", {"by takes"});
  refuses("by: type\nlinear: 3\n", {"linear", "config"});
  refuses("rpu_config: {forward_inp_res: 100}\n", {"forward_inp_res", "2^b - 2"});
  refuses("rpu_config: {forward_inp_res: 254}\n", {"input_range_enable"});
  refuses("rpu_config: {clip_sigma: 2, clip_type: gaussian_channel}\n", {"clip_type"});
  refuses("rpu_config: {modifier_res: 254}\n", {"modifier_res", "w_bits"});
  refuses("rpu_config: {input_range_enable: true, input_range_fast_mode: true}\n",
          {"input_range_fast_mode"});
  refuses("rpu_config: {clip_sigm: 2}\n", {"clip_sigm", "clip_sigma"});
  refuses("rpu_config: 3\n", {"rpu_config", "map"});
}

}  // namespace legacy_analog_test
}  // namespace refract
