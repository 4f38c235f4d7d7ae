// The parameters of a model as a person wants to read them: equal layers stand once.
#pragma once
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "model/parameters.h"

namespace refract {

struct FoldedParameter {
  std::string name;  // "model.layers.0-11.mlp.up_proj.weight": of layers 0 to 11
  std::vector<int64_t> shape;
  int64_t copies = 1;  // layers that have it
  int64_t count = 0;   // numbers, in all copies
};

// Decoder layers that follow each other and have the same parameters in the same shapes are folded
// into one. The order is that of the model.
std::vector<FoldedParameter> fold_layers(const std::deque<Parameter>& parameters);

}  // namespace refract
