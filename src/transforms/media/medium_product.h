// A matrix product as a medium computes it: what linear layers and attention in a medium are made
// of (transforms/media/medium_layers.h), and what a kind stands on that changes the operands before
// the medium sees them (transforms/media/conditioned_product.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "model/slots.h"

namespace refract {

// One place in a model: it may keep what it derived from its second operand, and ranges.
class MediumProduct {
 public:
  virtual ~MediumProduct() = default;
  // first [..., M, K] and second [..., N, K], or a weight [N, K], of one type -> first second^T as
  // the medium computes it, [..., M, N] in that type, recorded by autograd.
  virtual at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                              const at::Tensor& second) = 0;
  // Multiplications per token beside those of the dense product.
  virtual int64_t extra_multiplications() const { return 0; }
};

// Without a medium: by the linear op for a weight, else by matmul.
at::Tensor dense_product(const at::Tensor& first, const at::Tensor& second);

// No medium.
class DenseProduct : public MediumProduct {
 public:
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                      const at::Tensor& second) override;
};

// What a kind derives from, beside Kind, whose linear layers are products with a weight.
class GivesProduct {
 public:
  virtual ~GivesProduct() = default;
  // Declares the medium's buffers, and the parameters that it learns, "<spec.name>.<something>".
  virtual std::unique_ptr<MediumProduct> product(Build build, const LinearSpec& spec) const = 0;
};

}  // namespace refract
