// A medium that changes what a matrix product multiplies: number formats, flipped bits. Linear
// layers and attention in it (transforms/media/medium_layers.h) are composed of its product.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/slots.h"

namespace refract {

// Where a product stands in the model. Holds what the medium keeps from one call to the next.
struct ProductSite {
  // `name`: "model.layers.3.mlp.up_proj", or "model.layers.3.self_attn.qk" and ".av".
  ProductSite(const std::string& name, bool weight);

  bool weight;                           // the second operand is a parameter, not an activation
  uint64_t first_stream, second_stream;  // of the operands' random numbers
  at::Tensor prepared;                   // the second operand as the medium represents it
};

class ProductMedium {
 public:
  virtual ~ProductMedium() = default;
  // first [..., M, K] and second [..., N, K] -> [..., M, N], recorded by autograd.
  virtual at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                              const at::Tensor& second, ProductSite& site) const = 0;
  // Whether layers that share their input may be one product over their joined weights. Not where a
  // weight is represented as a whole, by one scale.
  virtual bool joins_weights() const { return true; }
};

// The clock of random numbers for a parameter: (step, 0), or that of an evaluation.
at::Tensor weight_clock(const ForwardContext& context, const at::Tensor& like);
// The same for an activation [B, ...], by its place in the global batch.
at::Tensor activation_clock(const ForwardContext& context, const at::Tensor& x);

}  // namespace refract
