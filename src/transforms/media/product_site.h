// Where a product stands in the model, for a medium that draws random numbers for its operands.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/slots.h"

namespace refract {

struct ProductSite {
  // `name`: "model.layers.3.mlp.up_proj", or "model.layers.3.self_attn.qk" and ".av".
  ProductSite(const std::string& name, bool weight);

  bool weight;                           // the second operand is a parameter, not an activation
  uint64_t first_stream, second_stream;  // of the operands' random numbers
};

// The clock of random numbers for a parameter: (step, 0), or that of an evaluation.
at::Tensor weight_clock(const ForwardContext& context, const at::Tensor& like);
// The same for an activation [B, ...], by its place in the global batch.
at::Tensor activation_clock(const ForwardContext& context, const at::Tensor& x);

}  // namespace refract
