// Schema, checks, composite form and autograd of the norm ops.
#include "ops/dense/norm/norm.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

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

void check_forward(const NormForwardInputs& in) {
  const char* op = in.residual.has_value() ? "add_norm" : "norm";
  check_fit(op, in.x, in.weight);
  if (in.residual.has_value()) {
    check_like(op, "residual", *in.residual, "x", in.x);
    check_same_shape(op, "residual", *in.residual, "x", in.x);
  }
  if (in.bias.has_value()) {
    TORCH_CHECK(!in.rms, "refract::", op, ": expected no bias with rms, got one of shape ",
                in.bias->sym_sizes());
    check_like(op, "bias", *in.bias, "x", in.x);
    check_vector(op, "bias", *in.bias, in.x.sym_size(-1));
  }
}

void check_backward(const NormBackwardInputs& in) {
  const char* op = "norm_backward";
  check_fit(op, in.sum, in.weight);
  check_like(op, "grad_y", in.grad_y, "sum", in.sum);
  check_same_shape(op, "grad_y", in.grad_y, "sum", in.sum);
  if (in.grad_sum.has_value()) {
    check_like(op, "grad_sum", *in.grad_sum, "sum", in.sum);
    check_same_shape(op, "grad_sum", *in.grad_sum, "sum", in.sum);
  }
  const c10::SymInt rows = in.sum.sym_numel() / in.sum.sym_size(-1).max(1);
  check_vector(op, "rstd", in.rstd, rows);
  if (!in.rms) check_vector(op, "mean", in.mean, rows);
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

NormForwardResult norm_forward(const NormForwardInputs& in) {
  norm_op::check_forward(in);
  const at::ScalarType wide = statistics_type(in.x);
  const at::Tensor sum = in.residual ? in.x.add(*in.residual).contiguous() : in.x.contiguous();
  const at::Tensor s = sum.to(wide);
  at::Tensor mean = at::empty({0}, s.options());
  at::Tensor centred = s;
  if (!in.rms) {
    mean = s.mean({-1}, true);
    centred = s.sub(mean);
    mean = mean.flatten();
  }
  const at::Tensor rstd = centred.square().mean({-1}, true).add(in.eps).rsqrt();
  at::Tensor y = centred.mul(rstd);
  if (in.rms) {
    y = y.to(in.x.scalar_type()).mul(in.weight);
  } else {
    y = y.mul(in.weight.to(wide));
    if (in.bias.has_value()) y = y.add(in.bias->to(wide));
    y = y.to(in.x.scalar_type());
  }
  return {y, in.residual ? sum : at::empty({0}, in.x.options()), mean, rstd.flatten()};
}

NormBackwardResult norm_backward(const NormBackwardInputs& in) {
  norm_op::check_backward(in);
  const at::ScalarType wide = statistics_type(in.sum);
  const int64_t columns = in.sum.size(-1);
  const at::Tensor scale = per_row(in.rstd, in.sum);
  at::Tensor normed = in.sum.contiguous().to(wide);
  if (!in.rms) normed = normed.sub(per_row(in.mean, in.sum));
  normed = normed.mul(scale);
  const at::Tensor gy = in.grad_y.contiguous().to(wide);
  const at::Tensor g = gy.mul(in.weight.to(wide));
  at::Tensor grad_x = g.sub(normed.mul(g.mul(normed).mean({-1}, true)));
  if (!in.rms) grad_x = grad_x.sub(g.mean({-1}, true));
  grad_x = grad_x.mul(scale);
  if (in.grad_sum.has_value()) grad_x = grad_x.add(in.grad_sum->to(wide));
  const auto over_rows = [&](const at::Tensor& t) {
    return t.sum_to_size({columns}).to(in.weight.scalar_type());
  };
  return {grad_x.to(in.sum.scalar_type()), over_rows(gy.mul(normed)),
          in.has_bias ? over_rows(gy) : at::empty({0}, in.weight.options())};
}

}  // namespace composite

namespace {

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

struct Norm {
  static at::Tensor forward(AutogradContext* ctx, const NormInputs& in) {
    auto [y, sum, mean, rstd] =
        norm_forward(in.x, std::nullopt, in.weight, in.bias, in.eps, in.rms);
    save(ctx, in.x, mean, rstd, in.weight, in.bias.has_value(), in.rms);
    return y;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return backward_of(ctx, grads[0], {});
  }
};

struct AddNorm {
  static variable_list forward(AutogradContext* ctx, const AddNormInputs& in) {
    auto [y, sum, mean, rstd] = norm_forward(in.x, in.residual, in.weight, in.bias, in.eps, in.rms);
    save(ctx, sum, mean, rstd, in.weight, in.bias.has_value(), in.rms);
    return {y, sum};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto g = backward_of(ctx, grads[0], grads[1]);
    return {g[0], g[0], g[1], g[2]};
  }
};

at::Tensor norm_autograd(const NormInputs& in) {
  return recorded<Norm>(norm, in, in.x, in.weight, in.bias);
}

std::tuple<at::Tensor, at::Tensor> add_norm_autograd(const AddNormInputs& in) {
  if (any_gradient(in.x, in.residual, in.weight, in.bias)) {
    const auto out = Recorded<AddNorm>::apply(in.x, in.residual, in.weight, in.bias, in);
    return {out[0], out[1]};
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return add_norm(in);
}

at::Tensor norm_plain(const NormInputs& in) {
  return std::get<0>(norm_forward(in.x, std::nullopt, in.weight, in.bias, in.eps, in.rms));
}

std::tuple<at::Tensor, at::Tensor> add_norm_plain(const AddNormInputs& in) {
  auto [y, sum, mean, rstd] = norm_forward(in.x, in.residual, in.weight, in.bias, in.eps, in.rms);
  return {y, sum};
}

// The fake forms know shapes only, symbolic ones too.
NormForwardResult norm_forward_meta(const NormForwardInputs& in) {
  norm_op::check_forward(in);
  const auto wide = in.x.options().dtype(statistics_type(in.x));
  c10::SymInt rows = 1;
  for (const auto& size : in.x.sym_sizes().slice(0, in.x.dim() - 1)) rows = rows * size;
  const auto none = at::empty({0}, wide);
  return {at::empty_symint(in.x.sym_sizes(), in.x.options()),
          in.residual ? at::empty_symint(in.x.sym_sizes(), in.x.options())
                      : at::empty({0}, in.x.options()),
          in.rms ? none : at::empty_symint({rows}, wide), at::empty_symint({rows}, wide)};
}

NormBackwardResult norm_backward_meta(const NormBackwardInputs& in) {
  return {at::empty_symint(in.sum.sym_sizes(), in.sum.options()),
          at::empty_symint(in.weight.sym_sizes(), in.weight.options()),
          in.has_bias ? at::empty_symint(in.weight.sym_sizes(), in.weight.options())
                      : at::empty({0}, in.weight.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, norm, "(Tensor x, Tensor weight, Tensor? bias, float eps, bool rms) -> Tensor")
      .composite<norm_plain>()
      .autograd<norm_autograd>();
  define(m, add_norm,
         "(Tensor x, Tensor residual, Tensor weight, Tensor? bias, float eps, bool rms)"
         " -> (Tensor, Tensor)")
      .composite<add_norm_plain>()
      .autograd<add_norm_autograd>();
  define(m, norm_forward,
         "(Tensor x, Tensor? residual, Tensor weight, Tensor? bias, float eps, bool rms)"
         " -> (Tensor y, Tensor sum, Tensor mean, Tensor rstd)")
      .composite<composite::norm_forward>()
      .meta<norm_forward_meta>();
  define(m, norm_backward,
         "(Tensor grad_y, Tensor? grad_sum, Tensor sum, Tensor mean, Tensor rstd, Tensor weight,"
         " bool has_bias, bool rms) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)")
      .composite<composite::norm_backward>()
      .meta<norm_backward_meta>();
}

}  // namespace refract
