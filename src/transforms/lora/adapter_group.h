// The adapters of linear layers that share their input (Hu et al. 2021, arXiv 2106.09685, section
// 4.1). Layer m multiplies by a frozen W_m [out, in], to which s B_m A_m is added: A_m [r, in], B_m
// [out, r], s = alpha / r. B starts at zero, so that the first output is the frozen layer's, and A
// uniform within +-1 / sqrt(in), as PEFT's.
//
// The product is beside the layer's own, or the layer multiplies by W + s B A. Side by side, A of
// all layers is one matrix [M r, in], and s B is block diagonal, [sum of out, M r], so that either
// way the group's adapters are one product. With g the gradient of the output,
//   dA = (g s B)^T x          dB = s g^T (x A^T)
// so that no gradient of W's size is made, unless the layer multiplies in a medium that has a
// gradient of its own, dW, for its weight:
//   dA = (s B)^T dW           dB = s dW A^T
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/slots.h"

namespace refract {

struct LoraSettings {
  int64_t r = 8;
  double alpha = 16;
  double dropout = 0;

  double scale() const { return alpha / static_cast<double>(r); }
};

class AdapterGroup {
 public:
  // Declares "<name>.lora_A.weight" and "<name>.lora_B.weight" of every member.
  AdapterGroup(Build build, const std::vector<LinearSpec>& members, const LoraSettings& settings);

  // Beside: y [..., sum of out], what the layers made of x [..., in], -> y + s (x A^T) B^T. With
  // `in_place` it is written into y, which nobody may have kept for a gradient. Dropout, in
  // training, draws one mask of x for all members.
  at::Tensor add(const ForwardContext& context, const at::Tensor& y, const at::Tensor& x,
                 bool in_place);

  // As add(), without dropout, to a y that frozen layers of `weight` [sum of out, in] made and
  // nobody recorded. Their gradient is the dense product's: x gets g (W + s B A), by one product.
  at::Tensor add_to_unrecorded(const ForwardContext& context, const at::Tensor& y,
                               const at::Tensor& x, const at::Tensor& weight);
  // Whether dropout changes what the adapters see of x.
  bool drops(const ForwardContext& context) const {
    return context.training && settings_.dropout > 0;
  }

  // Merged: W + s B A in the type of `weight` [sum of out, in], without a gradient; made anew where
  // the context says that weights changed.
  at::Tensor merge(const ForwardContext& context, const at::Tensor& weight);
  // merge()'s weight, such that what a layer gives as its gradient reaches A and B.
  at::Tensor merge_recorded(const ForwardContext& context, const at::Tensor& weight);
  // What a layer made of x with merge()'s weight and without a gradient for it, such that A and B
  // get those of the dense product.
  at::Tensor attach(const at::Tensor& y, const at::Tensor& x);

  // Of one member: its starting values, and s B A [out, in] from master values.
  void initialize(size_t member, uint64_t seed);
  at::Tensor delta(size_t member) const;
  // r (in + out): what its adapter multiplies per token beside the layer, or, merged, once for each
  // of the gradients of A and B.
  int64_t multiplications(size_t member) const;

 private:
  void refresh_spread(const ForwardContext& context);

  LoraSettings settings_;
  std::vector<LinearSpec> members_;
  std::vector<int64_t> splits_;  // rows of each member
  ParameterArena& arena_;
  std::vector<Parameter*> a_, b_;
  at::Tensor places_;  // of the members' blocks in spread_, times s
  at::Tensor spread_;  // s B, block diagonal
  at::Tensor merged_;
};

// A layer that multiplies by the merged weight: its adapter costs nothing per token but in the
// backward pass.
class MergedAdapterLayer {
 public:
  virtual ~MergedAdapterLayer() = default;
  // Of the gradients of A and B, per token; 0 without an adapter.
  virtual int64_t adapter_gradient_multiplications() const = 0;
};

}  // namespace refract
