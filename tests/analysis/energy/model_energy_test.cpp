// Energy of products and models: the formulas by hand, the published advantage, every kind.
#include "analysis/energy/model_energy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>

#include "analysis/energy/energy_constants.h"
#include "support/errors.h"
#include "support/temporary_folder.h"
#include "transforms/kind.h"
#include "transforms/media/hadamard.h"
#include "transforms/model_builder.h"

namespace refract {
namespace model_energy_test {

using nlohmann::json;
using testing::expect_error;

// Round numbers, so that sums can be done by hand: 8 levels have 3 bits.
EnergyConstants round_constants() {
  EnergyConstants c;
  c.mac_core = 4;
  c.mac_system = 10;
  c.load_bit = 100;
  c.store_bit = 1000;
  c.dac_level = 7;
  c.adc_level = 9;
  c.wavelength = 6.62607015e-34 * 299792458;  // a photon has 1 J
  c.photons = 2;
  c.efficiency = 0.5;
  c.conductance = 2;
  c.read_voltage = 3;
  c.read_time = 5;
  return c;
}

Energy of(const json& table, const ProductShape& product) {
  return make_kind(table.dump(), "the test")->energy(product, round_constants());
}

ProductShape linear(int64_t in, int64_t out) {
  ProductShape product{in, out};
  product.multiplications = product.dense();
  return product;
}

// d_in (E_load + E_DAC) + d_out (E_ADC + E_store) + d_out N h nu / eta.
constexpr double kInput = 3 * 100 + 8 * 7, kOutput = 8 * 9 + 3 * 1000 + 2 * 64 * 1 / 0.5;

TEST(Energy, AnOpticalProductIsTheFormula) {
  const json optical = {{"kind", "optical"}, {"q_levels", 8}};
  const Energy plain = of(optical, linear(5, 3));
  EXPECT_DOUBLE_EQ(plain.product, 5 * kInput + 3 * kOutput);
  EXPECT_EQ(plain.beside, 0);
  json fine = optical;
  fine["q_x_per"] = "token";
  fine["q_w_per"] = "channel";
  EXPECT_DOUBLE_EQ(of(fine, linear(5, 3)).beside, 10 * (5 + 3));  // scaled digitally
  json bypass = optical;
  bypass["q_bypass"] = true;
  EXPECT_EQ(of(bypass, linear(5, 3)).product, 10 * 15);
}

// Inputs of each tile along a row and outputs of each along a column are converted, and the two
// devices of a weight are read; 8 levels again.
TEST(Energy, AnAnalogProductPaysForItsConvertersAndItsDevices) {
  const json tiles = {
      {"kind", "analog"}, {"x_bits", 3}, {"adc_bits", 3}, {"tile_rows", 4}, {"tile_columns", 2}};
  const Energy found = of(tiles, linear(6, 5));
  EXPECT_DOUBLE_EQ(found.product, 6 * (3 * 100 + 3 * 8 * 7) + 5 * (2 * 8 * 9 + 3 * 1000) +
                                      6 * 5 * 2.0 * 2 * 3 * 3 * 5);
  EXPECT_DOUBLE_EQ(found.beside, 10 * 5 * 2);
  const json digital = {
      {"kind", "analog"}, {"preset", "sram"}, {"x_format", "int8"}, {"w_format", "int4"}};
  EXPECT_DOUBLE_EQ(of(digital, linear(5, 3)).product, 15 * (4 * 0.5 + 6 * 0.75));
}

TEST(Energy, WhatIsBesideAMediumIsDigital) {
  const json optical = {{"kind", "optical"}, {"q_levels", 8}};
  ProductShape product = linear(6, 4);
  product.multiplications += 30;  // a rotation
  const Energy turned = of({{"kind", "conditioned"}, {"over", optical}}, product);
  EXPECT_DOUBLE_EQ(turned.product, 6 * kInput + 4 * kOutput);
  EXPECT_DOUBLE_EQ(turned.beside, 10 * 30);
  // Of two heads of a width of 4 beside one of keys and values, over 5 keys.
  ProductShape scores{4, 5};
  scores.times = 2;
  scores.multiplications = scores.dense();
  scores.head_dim = 4;
  scores.kv_heads = 1;
  const Energy attention = of({{"kind", "conditioned"}, {"over", optical}}, scores);
  EXPECT_DOUBLE_EQ(attention.product, 2 * (4 * kInput + 5 * kOutput));
  EXPECT_DOUBLE_EQ(attention.beside,
                   10.0 * (2 + 1) * static_cast<double>(Hadamard(4, 0, "").multiplications()));
  ProductShape adapted = linear(6, 4);
  adapted.multiplications += 2 * (6 + 4);
  const Energy beside = of({{"kind", "lora"}, {"r", 2}, {"over", optical}}, adapted);
  EXPECT_DOUBLE_EQ(beside.product, 6 * kInput + 4 * kOutput);
  EXPECT_DOUBLE_EQ(beside.beside, 10 * 2 * (6 + 4));
  const Energy merged =
      of({{"kind", "lora"}, {"r", 2}, {"adapter", "merged"}, {"over", optical}}, linear(6, 4));
  EXPECT_EQ(merged.beside, 0);
}

TEST(Energy, FactorsAreProductsOfTheirOwn) {
  const json optical = {{"kind", "optical"}, {"q_levels", 8}};
  ProductShape product = linear(8, 6);
  product.multiplications = 2 * (8 + 6);
  EXPECT_EQ(of({{"kind", "low_rank"}, {"rank", 2}}, product).product, 10 * 2 * (8 + 6));
  const Energy factors = of({{"kind", "low_rank"}, {"rank", 2}, {"over", optical}}, product);
  EXPECT_DOUBLE_EQ(factors.product, (8 + 2) * kInput + (2 + 6) * kOutput);
}

// A multiplier's energy goes with the product of the widths, moving with their sum.
TEST(Energy, NarrowNumbersCostLess) {
  const auto integers = [](int64_t x, int64_t w) {
    return of({{"kind", "integer"}, {"x_bits", x}, {"w_bits", w}}, linear(5, 3)).product;
  };
  EXPECT_DOUBLE_EQ(integers(8, 8), 15 * 10);
  EXPECT_DOUBLE_EQ(integers(8, 4), 15 * (4 * 0.5 + 6 * 0.75));
  EXPECT_DOUBLE_EQ(of({{"kind", "mx"}, {"format", "e2m1"}}, linear(5, 3)).product,
                   15 * (4 * 0.25 + 6 * 0.5));
  EXPECT_DOUBLE_EQ(of({{"kind", "minifloat"}, {"format", "e4m3"}}, linear(5, 3)).product, 15 * 10);
}

// The widths of the paper's largest model: about 100 times less than 300 fJ for a multiplication.
TEST(Energy, TheConstantsGiveThePublishedAdvantage) {
  const EnergyConstants constants = energy_constants();
  const ProductShape wide = linear(12288, 12288);
  const double advantage = digital_energy(wide.dense(), constants) /
                           make_kind(R"("optical")", "the test")->energy(wide, constants).total();
  EXPECT_GT(advantage, 80);
  EXPECT_LT(advantage, 150);
  const ProductShape narrow = linear(768, 768);
  EXPECT_NEAR(make_kind(R"("optical")", "the test")->energy(narrow, constants).total() * 16,
              make_kind(R"("optical")", "the test")->energy(wide, constants).total(),
              1e-20);  // linear in the width
}

TEST(Energy, EveryConstantHasASource) {
  std::ifstream file("src/analysis/energy/energy.toml");  // tests run in the root of the sources
  ASSERT_TRUE(file);
  int constants = 0;
  for (std::string line; std::getline(file, line);) {
    if (line.find('=') == std::string::npos || line.starts_with('#')) continue;
    ++constants;
    EXPECT_TRUE(std::regex_search(line, std::regex(R"(= \S+ +# .{20,})"))) << line;
  }
  EXPECT_EQ(constants, 14);
}

TEST(Energy, AFileReplacesConstants) {
  const testing::TemporaryFolder folder;
  const auto write = [&](const std::string& text) {
    std::ofstream(folder.str("own.toml")) << text;
    return folder.str("own.toml");
  };
  const EnergyConstants own = energy_constants(write("[converters]\nadc_level = 5e-15\n"));
  EXPECT_EQ(own.adc_level, 5e-15);
  EXPECT_EQ(own.dac_level, energy_constants().dac_level);
  expect_error([&] { energy_constants(write("[converters]\nadc_levels = 1\n")); },
               {"own.toml", "converters.adc_levels", "converters.adc_level"});
}

// Every module once, each in its rule's medium; the baseline does not depend on rules.
TEST(Energy, OfAModelIsTheSumOfItsModules) {
  ModelConfig config = preset("structured-s");
  config.num_hidden_layers = 2;
  resolve(config, 0, 64);
  const EnergyConstants c = round_constants();
  const auto energy = [&](const std::string& rules) {
    const TransformedModel model = build_model(config, rules, "the test");
    return energy_per_token(*model.decoder, model.rules, 63, c);
  };
  const auto dense = energy("");
  ASSERT_EQ(dense.size(), 2 * 7U + 1);
  for (const ModuleEnergy& module : dense) {
    EXPECT_EQ(module.medium, "digital");
    EXPECT_EQ(module.energy.total(), module.digital) << module.module;
  }
  EXPECT_EQ(dense[0].digital, 10.0 * 768 * 768);
  EXPECT_EQ(dense[3].module, "model.layers.0.self_attn");
  EXPECT_EQ(dense[3].digital, 10.0 * 2 * 32 * 768);  // 32 of 63 keys on average
  EXPECT_EQ(dense.back().digital, 10.0 * 768 * static_cast<double>(config.vocab_size));
  const auto mixed = energy(
      R"([{"match": ".*up_proj", "kind": "conditioned", "over": {"kind": "optical", "q_levels": 8}},
          {"match": ".*self_attn", "kind": "optical", "q_levels": 8}])");
  EXPECT_EQ(total_of(mixed).digital, total_of(dense).digital);
  EXPECT_EQ(mixed[5].medium, "conditioned over optical");
  EXPECT_DOUBLE_EQ(mixed[5].energy.product, 768 * kInput + 3072 * kOutput);
  EXPECT_DOUBLE_EQ(mixed[5].energy.beside, 10 * (mixed[5].multiplications - 768.0 * 3072));
  EXPECT_GT(mixed[5].energy.beside, 0);
  EXPECT_EQ(mixed[3].medium, "optical");
  EXPECT_DOUBLE_EQ(mixed[3].energy.product, 12 * ((64 + 32) * kInput + (32 + 64) * kOutput));
}

}  // namespace model_energy_test
}  // namespace refract
