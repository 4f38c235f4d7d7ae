// The autograd form of an op.
#pragma once
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <optional>
#include <tuple>

#include "ops/common/op.h"

namespace refract {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

inline bool wants_gradient(const at::Tensor& t) { return t.defined() && t.requires_grad(); }
inline bool wants_gradient(const std::optional<at::Tensor>& t) {
  return t.has_value() && wants_gradient(*t);
}

// Whether autograd has to record: most calls of inference skip its bookkeeping by asking first.
template <class... T>
bool any_gradient(const T&... tensors) {
  return at::GradMode::is_enabled() && (wants_gradient(tensors) || ...);
}

// What is recorded of a call: Formula has
//   static Result forward(AutogradContext* ctx, const Inputs& in)
//   static variable_list backward(AutogradContext* ctx, const variable_list& grads)
// forward() computes the result below autograd and saves what backward() needs; backward() returns
// the gradients of the tensors that apply() was given before `in`.
template <class Formula>
struct Recorded : torch::autograd::Function<Recorded<Formula>> {
  static auto forward(AutogradContext* ctx, const auto&... tensors_and_in) {
    at::AutoDispatchBelowADInplaceOrView below;
    constexpr size_t last = sizeof...(tensors_and_in) - 1;
    return Formula::forward(ctx, std::get<last>(std::tie(tensors_and_in...)));
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out = Formula::backward(ctx, grads);
    out.emplace_back();  // of `in`
    return out;
  }
};

// op(in), recorded where one of `tensors`, its inputs with a gradient, wants one.
template <class Formula, class Op, class... T>
at::Tensor recorded(Op op, const typename Op::Inputs& in, const T&... tensors) {
  if (any_gradient(tensors...)) return Recorded<Formula>::apply(tensors..., in);
  at::AutoDispatchBelowADInplaceOrView below;
  return op(in);
}

}  // namespace refract
