// Analog in-memory computing: a weight on crossbar tiles of memory devices, with converters at
// their edges; its mathematics is in transforms/analog/.
#include <cmath>
#include <initializer_list>
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "transforms/analog/analog_parameters.h"
#include "transforms/analog/analog_product.h"
#include "transforms/analog/sram_product.h"
#include "transforms/kind.h"
#include "transforms/media/medium_product.h"

namespace refract {
namespace {

int64_t parts(int64_t whole, int64_t size) { return size > 0 ? (whole + size - 1) / size : 1; }

struct Setting {
  const char* name;
  bool changed;
};

std::string first_changed(std::initializer_list<Setting> settings) {
  for (const Setting& setting : settings) {
    if (setting.changed) return setting.name;
  }
  return "";
}

// The first setting of converters, outputs or the weight that is not at its default; "": none.
std::string changed_analog_setting(const AnalogParameters& p) {
  const AnalogParameters d;
  return first_changed({{"x_bits", p.x_bits != d.x_bits},
                        {"x_range", p.x_range != d.x_range},
                        {"out_noise", p.out_noise != d.out_noise},
                        {"out_bound", p.out_bound != d.out_bound},
                        {"adc_bits", p.adc_bits != d.adc_bits},
                        {"adc_range", p.adc_range != d.adc_range},
                        {"read_noise", p.read_noise != d.read_noise},
                        {"ir_drop", p.ir_drop != d.ir_drop},
                        {"w_scale", p.w_scale != d.w_scale},
                        {"w_bits", p.w_bits != d.w_bits},
                        {"w_clip", p.w_clip != d.w_clip},
                        {"w_noise", p.w_noise != d.w_noise},
                        {"w_noise_per", p.w_noise_per != d.w_noise_per},
                        {"train_programming", p.train_programming}});
}

std::string changed_digital_setting(const AnalogParameters& p) {
  const AnalogParameters d;
  return first_changed({{"x_format", p.x_format != d.x_format},
                        {"w_format", p.w_format != d.w_format},
                        {"product_noise", p.product_noise != d.product_noise}});
}

class Analog : public Kind, public GivesProduct {
 public:
  void describe(Fields& fields) override {
    AnalogParameters& p = p_;
    const Limits not_negative = {.min = 0}, bits = {.min = 0, .max = 16};
    const std::vector<std::string> per = {"column", "tile", "tensor"};
    const std::vector<std::string> formats = {"e4m3", "e5m2", "e8m7", "int8", "int4", "none"};
    fields.add("tile_rows", p.tile_rows, "inputs of a tile; 0: all", not_negative);
    fields.add("tile_columns", p.tile_columns, "outputs of a tile; 0: all", not_negative);
    fields.add("x_bits", p.x_bits, "of the converter of a tile's inputs; 0: none", bits);
    fields.add("x_range", p.x_range, "its range: each vector's own, a running one, a parameter",
               {"dynamic", "ema", "learned"});
    fields.add("x_smooth", p.x_smooth, "of ema: s of r <- s r + (1 - s) new", {.min = 0, .max = 1});
    fields.add("x_decay", p.x_decay, "of learned: shrinks a range that cuts off less than 5%",
               not_negative);
    fields.add("x_init", p.x_init, "of learned: steps that set the range from the data",
               not_negative);
    fields.add("out_noise", p.out_noise, "deviation on a tile's outputs, normalized", not_negative);
    fields.add("out_bound", p.out_bound, "largest output of a tile, normalized; 0: any",
               not_negative);
    fields.add("adc_bits", p.adc_bits, "of the converter of a tile's outputs; 0: none", bits);
    fields.add("adc_range", p.adc_range, "its range: the bound, or each vector's own within it",
               {"fixed", "vector"});
    fields.add("read_noise", p.read_noise, "s of s xi sqrt(sum x^2 abs(w)) on a tile's outputs",
               not_negative);
    fields.add("ir_drop", p.ir_drop, "drop of voltage along a tile's wires; 1: aihwkit's",
               not_negative);
    fields.add("w_scale", p.w_scale, "what shares the weight's largest value", per);
    fields.add("w_bits", p.w_bits, "of a weight; 0: any value", bits);
    fields.add("w_clip", p.w_clip, "deviations at which the weight is cut off; 0: nowhere",
               not_negative);
    fields.add("w_noise", p.w_noise, "deviation on the weight, of its largest value, in training",
               not_negative);
    fields.add("w_noise_per", p.w_noise_per, "of which largest value", per);
    fields.add("preset", p.preset, "devices of an evaluation; sram: digital, without devices",
               {"ideal", "pcm", "reram-wan", "gaussian", "sram"});
    fields.add("chip", p.chip, "another number is another chip");
    fields.add("time", p.time, "seconds since the chip was programmed", not_negative);
    fields.add("drift_compensation", p.drift_compensation,
               "scale each tile's outputs by what its mean weight has lost");
    fields.add("device_noise", p.device_noise, "factor of all deviations of the devices",
               not_negative);
    fields.add("programming_noise", p.programming_noise,
               "factor of that of programming alone, beside device_noise", not_negative);
    fields.add("train_programming", p.train_programming,
               "programmed anew in each step of training too");
    fields.add("x_format", p.x_format, "of sram: the input", formats);
    fields.add("w_format", p.w_format, "of sram: the weight", formats);
    fields.add("product_noise", p.product_noise, "of sram: s of y (1 + s xi) for each tile",
               not_negative);
  }

  void check(const std::string& where) const override {
    refuse_unused(where);
    for (const int64_t bits : {p_.x_bits, p_.adc_bits, p_.w_bits}) {
      if (bits == 1)
        fail_usage("{}: a converter of 1 bit has no magnitude; 2 bits or more, or 0", where);
    }
    if (p_.adc_range == "vector" && p_.adc_bits == 0)
      fail_usage("{}: adc_range = \"vector\" needs a converter; set adc_bits", where);
    if (p_.adc_range == "fixed" && p_.adc_bits > 0 && p_.out_bound == 0) {
      fail_usage("{}: a converter of adc_bits = {} needs a range; set out_bound, or adc_bits = 0",
                 where, p_.adc_bits);
    }
    if (p_.preset == "gaussian" && p_.w_noise == 0)
      fail_usage("{}: preset = \"gaussian\" takes its deviation from w_noise; set it", where);
  }

  bool transforms_linear() const override { return true; }
  bool straight_through() const override { return true; }

  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return make_analog_linear(build, spec, p_);
  }
  std::unique_ptr<MediumProduct> product(Build build, const LinearSpec& spec) const override {
    return make_analog_product(build, spec, p_);
  }

  // Inputs are converted for each tile along a row of tiles, outputs for each along a column; two
  // devices of a weight are read. Digitally, outputs of tiles are scaled and added.
  Energy energy(const ProductShape& product, const EnergyConstants& c) const override {
    const auto inputs = static_cast<double>(product.inputs);
    const auto outputs = static_cast<double>(product.outputs);
    const double beside = product.multiplications - product.dense();
    if (p_.digital()) {
      return {digital_energy(product.dense(), sram_bits(p_.x_format), sram_bits(p_.w_format), c),
              digital_energy(beside, c)};
    }
    const auto down = static_cast<double>(parts(product.inputs, p_.tile_rows));
    const auto across = static_cast<double>(parts(product.outputs, p_.tile_columns));
    const double in_bits = converter_bits(p_.x_bits), out_bits = converter_bits(p_.adc_bits);
    const double per_input = in_bits * c.load_bit + across * std::exp2(in_bits) * c.dac_level;
    const double per_output = down * std::exp2(out_bits) * c.adc_level + out_bits * c.store_bit;
    const double reading = 2 * c.conductance * c.read_voltage * c.read_voltage * c.read_time;
    return {
        product.times * (inputs * per_input + outputs * per_output + inputs * outputs * reading),
        digital_energy(beside + product.times * outputs * down, c)};
  }

 private:
  // A setting that nothing would read must be as it is by default.
  void refuse_unused(const std::string& where) const {
    if (p_.digital()) {
      const std::string name = changed_analog_setting(p_);
      if (!name.empty()) {
        fail_usage("{}: {} does nothing with preset = \"sram\", which is digital; leave it out",
                   where, name);
      }
      return;
    }
    const std::string name = changed_digital_setting(p_);
    if (!name.empty())
      fail_usage("{}: {} needs preset = \"sram\"; set it, or leave {} out", where, name, name);
  }

  // No converter is counted as one of 8 bits: the simulation may leave it out, a machine can't.
  static double converter_bits(int64_t bits) { return bits > 0 ? static_cast<double>(bits) : 8; }

  AnalogParameters p_;
};

}  // namespace

REFRACT_KIND(analog, Analog,
             "analog in-memory computing: tiles of memory devices between converters");

}  // namespace refract
