// Schema, checks, composite form and autograd of the norm ops.
#include "ops/dense/norm/norm.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace norm_op {
namespace {

void check_fit(const char* op, const at::Tensor& x, const at::Tensor& weight) {
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() >= 1, "refract::", op, ": expected x of shape [..., C], got a scalar");
  check_vector(op, "weight", weight, x.sym_size(-1));
}

}  // namespace

void check_forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                   const at::Tensor& weight, const std::optional<at::Tensor>& bias, bool rms) {
  const char* op = residual.has_value() ? "add_norm" : "norm";
  check_fit(op, x, weight);
  if (residual.has_value()) {
    check_like(op, "residual", *residual, "x", x);
    check_same_shape(op, "residual", *residual, "x", x);
  }
  if (bias.has_value()) {
    TORCH_CHECK(!rms, "refract::", op, ": expected no bias with rms, got one of shape ",
                bias->sym_sizes());
    check_like(op, "bias", *bias, "x", x);
    check_vector(op, "bias", *bias, x.sym_size(-1));
  }
}

void check_backward(const at::Tensor& grad_y, const std::optional<at::Tensor>& grad_sum,
                    const at::Tensor& sum, const at::Tensor& mean, const at::Tensor& rstd,
                    const at::Tensor& weight, bool rms) {
  const char* op = "norm_backward";
  check_fit(op, sum, weight);
  check_like(op, "grad_y", grad_y, "sum", sum);
  check_same_shape(op, "grad_y", grad_y, "sum", sum);
  if (grad_sum.has_value()) {
    check_like(op, "grad_sum", *grad_sum, "sum", sum);
    check_same_shape(op, "grad_sum", *grad_sum, "sum", sum);
  }
  const c10::SymInt rows = sum.sym_numel() / sum.sym_size(-1).max(1);
  check_vector(op, "rstd", rstd, rows);
  if (!rms) check_vector(op, "mean", mean, rows);
}

}  // namespace norm_op

namespace {

at::ScalarType statistics_type(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

// [rows] -> [..., 1] beside x [..., C].
at::Tensor per_row(const at::Tensor& statistic, const at::Tensor& x) {
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() = 1;
  return statistic.view(shape);
}

}  // namespace

namespace composite {

NormForwardResult norm_forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                               const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                               double eps, bool rms) {
  norm_op::check_forward(x, residual, weight, bias, rms);
  const at::ScalarType wide = statistics_type(x);
  const at::Tensor sum = residual ? x.add(*residual).contiguous() : x.contiguous();
  const at::Tensor s = sum.to(wide);
  at::Tensor mean = at::empty({0}, s.options());
  at::Tensor centred = s;
  if (!rms) {
    mean = s.mean({-1}, true);
    centred = s.sub(mean);
    mean = mean.flatten();
  }
  const at::Tensor rstd = centred.square().mean({-1}, true).add(eps).rsqrt();
  at::Tensor y = centred.mul(rstd);
  if (rms) {
    y = y.to(x.scalar_type()).mul(weight);
  } else {
    y = y.mul(weight.to(wide));
    if (bias.has_value()) y = y.add(bias->to(wide));
    y = y.to(x.scalar_type());
  }
  return {y, residual ? sum : at::empty({0}, x.options()), mean, rstd.flatten()};
}

NormBackwardResult norm_backward(const at::Tensor& grad_y,
                                 const std::optional<at::Tensor>& grad_sum, const at::Tensor& sum,
                                 const at::Tensor& mean, const at::Tensor& rstd,
                                 const at::Tensor& weight, bool has_bias, bool rms) {
  norm_op::check_backward(grad_y, grad_sum, sum, mean, rstd, weight, rms);
  const at::ScalarType wide = statistics_type(sum);
  const int64_t columns = sum.size(-1);
  const at::Tensor scale = per_row(rstd, sum);
  at::Tensor normed = sum.contiguous().to(wide);
  if (!rms) normed = normed.sub(per_row(mean, sum));
  normed = normed.mul(scale);
  const at::Tensor gy = grad_y.contiguous().to(wide);
  const at::Tensor g = gy.mul(weight.to(wide));
  at::Tensor grad_x = g.sub(normed.mul(g.mul(normed).mean({-1}, true)));
  if (!rms) grad_x = grad_x.sub(g.mean({-1}, true));
  grad_x = grad_x.mul(scale);
  if (grad_sum.has_value()) grad_x = grad_x.add(grad_sum->to(wide));
  const auto over_rows = [&](const at::Tensor& t) {
    return t.sum_to_size({columns}).to(weight.scalar_type());
  };
  return {grad_x.to(sum.scalar_type()), over_rows(gy.mul(normed)),
          has_bias ? over_rows(gy) : at::empty({0}, weight.options())};
}

}  // namespace composite

NormForwardResult norm_forward(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                               const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                               double eps, bool rms) {
  static const auto op = find_op<decltype(norm_forward)>("refract::norm_forward");
  return op.call(x, residual, weight, bias, eps, rms);
}

NormBackwardResult norm_backward(const at::Tensor& grad_y,
                                 const std::optional<at::Tensor>& grad_sum, const at::Tensor& sum,
                                 const at::Tensor& mean, const at::Tensor& rstd,
                                 const at::Tensor& weight, bool has_bias, bool rms) {
  static const auto op = find_op<decltype(norm_backward)>("refract::norm_backward");
  return op.call(grad_y, grad_sum, sum, mean, rstd, weight, has_bias, rms);
}

at::Tensor norm(const at::Tensor& x, const at::Tensor& weight,
                const std::optional<at::Tensor>& bias, double eps, bool rms) {
  static const auto op = find_op<decltype(norm)>("refract::norm");
  return op.call(x, weight, bias, eps, rms);
}

std::tuple<at::Tensor, at::Tensor> add_norm(const at::Tensor& x, const at::Tensor& residual,
                                            const at::Tensor& weight,
                                            const std::optional<at::Tensor>& bias, double eps,
                                            bool rms) {
  static const auto op = find_op<decltype(add_norm)>("refract::add_norm");
  return op.call(x, residual, weight, bias, eps, rms);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The gradient of the norm with what flows into sum added: x's and the residual's.
variable_list backward_of(AutogradContext* ctx, const at::Tensor& grad_y,
                          const at::Tensor& grad_sum) {
  if (!grad_y.defined()) return {grad_sum, at::Tensor(), at::Tensor()};
  const auto saved = ctx->get_saved_variables();
  const bool has_bias = ctx->saved_data["has_bias"].toBool();
  auto [grad_x, grad_weight, grad_bias] =
      norm_backward(grad_y, optional_of(grad_sum), saved[0], saved[1], saved[2], saved[3], has_bias,
                    ctx->saved_data["rms"].toBool());
  return {grad_x, grad_weight, has_bias ? grad_bias : at::Tensor()};
}

void save(AutogradContext* ctx, const at::Tensor& sum, const at::Tensor& mean,
          const at::Tensor& rstd, const at::Tensor& weight, bool has_bias, bool rms) {
  ctx->save_for_backward({sum, mean, rstd, weight});
  ctx->saved_data["has_bias"] = has_bias;
  ctx->saved_data["rms"] = rms;
  ctx->set_materialize_grads(false);
}

struct Norm : torch::autograd::Function<Norm> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            const std::optional<at::Tensor>& bias, double eps, bool rms) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, sum, mean, rstd] = norm_forward(x, std::nullopt, weight, bias, eps, rms);
    save(ctx, x, mean, rstd, weight, bias.has_value(), rms);
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto g = backward_of(ctx, grads[0], {});
    return {g[0], g[1], g[2], at::Tensor(), at::Tensor()};
  }
};

struct AddNorm : torch::autograd::Function<AddNorm> {
  static variable_list forward(AutogradContext* ctx, const at::Tensor& x,
                               const at::Tensor& residual, const at::Tensor& weight,
                               const std::optional<at::Tensor>& bias, double eps, bool rms) {
    at::AutoDispatchBelowADInplaceOrView below;
    auto [y, sum, mean, rstd] = norm_forward(x, residual, weight, bias, eps, rms);
    save(ctx, sum, mean, rstd, weight, bias.has_value(), rms);
    return {y, sum};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto g = backward_of(ctx, grads[0], grads[1]);
    return {g[0], g[0], g[1], g[2], at::Tensor(), at::Tensor()};
  }
};

at::Tensor norm_autograd(const at::Tensor& x, const at::Tensor& weight,
                         const std::optional<at::Tensor>& bias, double eps, bool rms) {
  if (any_gradient(x, weight, bias)) return Norm::apply(x, weight, bias, eps, rms);
  at::AutoDispatchBelowADInplaceOrView below;
  return norm(x, weight, bias, eps, rms);
}

std::tuple<at::Tensor, at::Tensor> add_norm_autograd(const at::Tensor& x,
                                                     const at::Tensor& residual,
                                                     const at::Tensor& weight,
                                                     const std::optional<at::Tensor>& bias,
                                                     double eps, bool rms) {
  if (any_gradient(x, residual, weight, bias)) {
    const auto out = AddNorm::apply(x, residual, weight, bias, eps, rms);
    return {out[0], out[1]};
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return add_norm(x, residual, weight, bias, eps, rms);
}

at::Tensor norm_plain(const at::Tensor& x, const at::Tensor& weight,
                      const std::optional<at::Tensor>& bias, double eps, bool rms) {
  return std::get<0>(norm_forward(x, std::nullopt, weight, bias, eps, rms));
}

std::tuple<at::Tensor, at::Tensor> add_norm_plain(const at::Tensor& x, const at::Tensor& residual,
                                                  const at::Tensor& weight,
                                                  const std::optional<at::Tensor>& bias, double eps,
                                                  bool rms) {
  auto [y, sum, mean, rstd] = norm_forward(x, residual, weight, bias, eps, rms);
  return {y, sum};
}

// The fake forms know shapes only, symbolic ones too.
NormForwardResult norm_forward_meta(const at::Tensor& x, const std::optional<at::Tensor>& residual,
                                    const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                                    double, bool rms) {
  norm_op::check_forward(x, residual, weight, bias, rms);
  const auto wide = x.options().dtype(statistics_type(x));
  c10::SymInt rows = 1;
  for (const auto& size : x.sym_sizes().slice(0, x.dim() - 1)) rows = rows * size;
  const auto none = at::empty({0}, wide);
  return {at::empty_symint(x.sym_sizes(), x.options()),
          residual ? at::empty_symint(x.sym_sizes(), x.options()) : at::empty({0}, x.options()),
          rms ? none : at::empty_symint({rows}, wide), at::empty_symint({rows}, wide)};
}

NormBackwardResult norm_backward_meta(const at::Tensor&, const std::optional<at::Tensor>&,
                                      const at::Tensor& sum, const at::Tensor&, const at::Tensor&,
                                      const at::Tensor& weight, bool has_bias, bool) {
  return {at::empty_symint(sum.sym_sizes(), sum.options()),
          at::empty_symint(weight.sym_sizes(), weight.options()),
          has_bias ? at::empty_symint(weight.sym_sizes(), weight.options())
                   : at::empty({0}, weight.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("norm(Tensor x, Tensor weight, Tensor? bias, float eps, bool rms) -> Tensor");
  m.def(
      "add_norm(Tensor x, Tensor residual, Tensor weight, Tensor? bias, float eps, bool rms)"
      " -> (Tensor, Tensor)");
  m.def(
      "norm_forward(Tensor x, Tensor? residual, Tensor weight, Tensor? bias, float eps, bool rms)"
      " -> (Tensor y, Tensor sum, Tensor mean, Tensor rstd)");
  m.def(
      "norm_backward(Tensor grad_y, Tensor? grad_sum, Tensor sum, Tensor mean, Tensor rstd,"
      " Tensor weight, bool has_bias, bool rms)"
      " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("norm", norm_plain);
  m.impl("add_norm", add_norm_plain);
  m.impl("norm_forward", composite::norm_forward);
  m.impl("norm_backward", composite::norm_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) {
  m.impl("norm", norm_autograd);
  m.impl("add_norm", add_norm_autograd);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("norm_forward", norm_forward_meta);
  m.impl("norm_backward", norm_backward_meta);
}

}  // namespace refract
