// What a product costs in energy: the constants, and the costs that kinds share. Which kind pays
// what is said by Kind::energy().
//
// An optical product of a vector of d_in with a matrix of d_out x d_in costs (Anderson et al.,
// arXiv 2302.10360, section on energy)
//   d_in (E_load + E_DAC) + d_out (E_ADC + E_store) + d_out N h nu / eta,
// with N photons for each output. A value of L levels has log2 L bits to load and store, a
// converter of L levels spends its energy per level L times (Walden's figure of merit), and shot
// noise is one of L levels where N = L^2.
#pragma once
#include <cstdint>

namespace refract {

class Fields;

// In joules where nothing else is said.
struct EnergyConstants {
  double mac_core = 0;    // an 8-bit multiplication and addition: in the arithmetic units alone
  double mac_system = 0;  // with what moves the operands
  double load_bit = 0, store_bit = 0;
  double dac_level = 0, adc_level = 0;  // a conversion, per level
  double wavelength = 0;                // metres
  double photons = 0;                   // of an output, over the square of its levels
  double efficiency = 0;                // from the wall plug to the detector, of the light
  double spike_add = 0;                 // joules: a spike adds a number to a sum
  double spikes_per_value = 0;          // until a value's neuron has settled
  // Of a memory device that multiplies: the mean over weights in siemens, volts, seconds.
  double conductance = 0, read_voltage = 0, read_time = 0;
};
void describe(Fields& fields, EnergyConstants& constants);

// The product of a vector and a matrix that a module computes for one token.
struct ProductShape {
  int64_t inputs = 0, outputs = 0;
  double times = 1;            // such products for a token: the heads of an attention
  double multiplications = 0;  // of all of them, with what the module multiplies beside
  // Of an attention: the width of a head, and how many vectors of the second operand a token adds.
  // The matrix is a weight where they are 0.
  int64_t head_dim = 0, kv_heads = 0;

  double dense() const { return times * static_cast<double>(inputs * outputs); }
};

// Joules for one token.
struct Energy {
  double product = 0;  // of the product itself, with converting its operands and its results
  double beside = 0;   // of digital arithmetic that the module needs beside it

  double total() const { return product + beside; }
  Energy operator+(const Energy& other) const {
    return {product + other.product, beside + other.beside};
  }
  Energy operator*(double factor) const { return {product * factor, beside * factor}; }
};

// Digital arithmetic of 8 bits.
double digital_energy(double multiplications, const EnergyConstants& constants);
// With operands of other widths: a multiplier's energy goes with the product of its operands'
// widths, what moves them with the sum.
double digital_energy(double multiplications, double first_bits, double second_bits,
                      const EnergyConstants& constants);
// The formula above, for values and results of `levels` levels.
double optical_energy(const ProductShape& product, int64_t levels,
                      const EnergyConstants& constants);

}  // namespace refract
