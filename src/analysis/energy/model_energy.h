// Joules that a model takes for a token, module by module.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "transforms/energy.h"
#include "transforms/rules.h"

namespace refract {

struct ModuleEnergy {
  std::string module;  // "model.layers.3.mlp.down_proj"
  int64_t layer = -1;  // -1: the output layer
  std::string medium;  // "optical", "conditioned over optical"; "digital" where no rule stands
  double multiplications = 0;
  Energy energy = {};
  double digital = 0;  // the baseline: the dense module in digital arithmetic of 8 bits
};

// Of all linear layers, attentions (both products, half of `context` keys for each query on
// average) and the output layer, in the model's order. Norms, activations, softmax and the look-up
// of embeddings are left out on both sides. The decoder need not be allocated; it was built by
// these rules.
std::vector<ModuleEnergy> energy_per_token(const Decoder& decoder, const Rules& rules,
                                           int64_t context, const EnergyConstants& constants);

struct EnergyTotal {
  Energy energy = {};
  double digital = 0;
};
EnergyTotal total_of(const std::vector<ModuleEnergy>& modules);

}  // namespace refract
