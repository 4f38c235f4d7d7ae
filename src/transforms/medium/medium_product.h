// A medium's product with a weight that the caller gives: what a kind stands on that changes the
// weight before the medium sees it.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <utility>

#include "model/dense.h"
#include "model/slots.h"

namespace refract {

class MediumProduct {
 public:
  virtual ~MediumProduct() = default;
  // x [..., in], weight [out, in] of one type -> x weight^T as the medium computes it, [..., out]
  // in x's type. Its gradients are those of the dense product.
  virtual at::Tensor forward(const ForwardContext& context, const at::Tensor& x,
                             const at::Tensor& weight) = 0;
  // Multiplications per token beside those of the dense product.
  virtual int64_t extra_multiplications() const { return 0; }
};

// No medium: the dense product.
class DenseProduct : public MediumProduct {
 public:
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x,
                     const at::Tensor& weight) override;
};

// What a kind derives from, beside Kind, that can do so.
class GivesProduct {
 public:
  virtual ~GivesProduct() = default;
  // Declares the medium's buffers, "<spec.name>.<something>", and no parameter.
  virtual std::unique_ptr<MediumProduct> product(Build build, const LinearSpec& spec) const = 0;
};

// A linear layer with an ordinary weight, "<name>.weight", multiplied in a medium.
class MediumLinear : public DenseLinear {
 public:
  MediumLinear(Build build, const LinearSpec& spec, std::unique_ptr<MediumProduct> product);
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;
  bool computes_merged() const override { return false; }
  int64_t multiplications() const override;

 private:
  int64_t dense_multiplications_;
  std::unique_ptr<MediumProduct> product_;
};

}  // namespace refract
