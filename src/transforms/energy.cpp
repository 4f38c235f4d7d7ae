#include "transforms/energy.h"

#include <cmath>

#include "core/config.h"

namespace refract {
namespace {

constexpr double kPlanck = 6.62607015e-34, kLightSpeed = 299792458;  // exact by definition of SI
constexpr double kBits = 8;                                          // of the digital constants

}  // namespace

void describe(Fields& fields, EnergyConstants& c) {
  using enum Decides;
  const Limits not_negative{.min = 0}, positive{.min = 0, .open_min = true};
  fields.add({"digital.mac_core", kNothing}, c.mac_core,
             "joules of an 8-bit multiply-add, arithmetic alone", not_negative);
  fields.add({"digital.mac_system", kNothing}, c.mac_system,
             "joules of an 8-bit multiply-add, with moving its operands", not_negative);
  fields.add({"memory.load_bit", kNothing}, c.load_bit, "joules to load a bit", not_negative);
  fields.add({"memory.store_bit", kNothing}, c.store_bit, "joules to store a bit", not_negative);
  fields.add({"converters.dac_level", kNothing}, c.dac_level,
             "joules of a digital-to-analog conversion, per level", not_negative);
  fields.add({"converters.adc_level", kNothing}, c.adc_level,
             "joules of an analog-to-digital conversion, per level", not_negative);
  fields.add({"optical.wavelength", kNothing}, c.wavelength, "metres", positive);
  fields.add({"optical.photons", kNothing}, c.photons,
             "photons of an output, over the square of its levels", not_negative);
  fields.add({"optical.efficiency", kNothing}, c.efficiency,
             "share of the electrical energy that arrives as light at the detector",
             {.min = 0, .max = 1, .open_min = true});
  fields.add({"spiking.add", kNothing}, c.spike_add, "joules of a spike's addition to one sum",
             not_negative);
  fields.add({"spiking.per_value", kNothing}, c.spikes_per_value,
             "spikes of a value until its neuron has settled", not_negative);
  fields.add({"analog.conductance", kNothing}, c.conductance,
             "siemens of a device, the mean over weights", not_negative);
  fields.add({"analog.read_voltage", kNothing}, c.read_voltage, "volts across it", not_negative);
  fields.add({"analog.read_time", kNothing}, c.read_time, "seconds for a product", not_negative);
}

double digital_energy(double multiplications, const EnergyConstants& c) {
  return multiplications * c.mac_system;
}

double digital_energy(double multiplications, double first_bits, double second_bits,
                      const EnergyConstants& c) {
  const double core = c.mac_core * first_bits * second_bits / (kBits * kBits);
  const double moving = (c.mac_system - c.mac_core) * (first_bits + second_bits) / (2 * kBits);
  return multiplications * (core + moving);
}

double optical_energy(const ProductShape& product, int64_t levels, const EnergyConstants& c) {
  const auto L = static_cast<double>(levels);
  const double bits = std::log2(L);
  const double photon = kPlanck * kLightSpeed / c.wavelength / c.efficiency;
  const double input = bits * c.load_bit + L * c.dac_level;
  const double output = L * c.adc_level + bits * c.store_bit + c.photons * L * L * photon;
  return product.times * (static_cast<double>(product.inputs) * input +
                          static_cast<double>(product.outputs) * output);
}

}  // namespace refract
