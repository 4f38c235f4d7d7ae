// Schema, checks, composite forms and autograd of block_linear.
#include "ops/structured/block_linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace block_linear_op {

void check(const char* op, const at::Tensor& x, const at::Tensor& weight) {
  check_floating(op, "x", x);
  TORCH_CHECK(x.dim() >= 1, "refract::", op, ": expected x of shape [..., B k], got a scalar");
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(weight.dim() == 3, "refract::", op, ": expected weight of shape [B, m, k], got ",
              weight.sym_sizes());
  TORCH_CHECK(weight.sym_size(0) * weight.sym_size(2) == x.sym_size(-1), "refract::", op,
              ": expected x of shape [..., ", weight.sym_size(0) * weight.sym_size(2),
              "] for a weight of shape ", weight.sym_sizes(), ", got ", x.sym_sizes());
}

void check_backward(const char* op, const at::Tensor& grad, const at::Tensor& x,
                    const at::Tensor& weight) {
  check(op, x, weight);
  check_like(op, "grad", grad, "x", x);
  TORCH_CHECK(grad.dim() == x.dim() && grad.sym_size(-1) == weight.sym_size(0) * weight.sym_size(1),
              "refract::", op, ": expected grad of the output's shape for x of shape ",
              x.sym_sizes(), " and a weight of shape ", weight.sym_sizes(), ", got ",
              grad.sym_sizes());
}

void check_matrix(const at::Tensor& x, const std::optional<at::Tensor>& row_bias) {
  const char* op = "transposed_copy";
  check_floating(op, "x", x);
  TORCH_CHECK(x.dim() == 2, "refract::", op, ": expected x of shape [rows, columns], got ",
              x.sym_sizes());
  if (!row_bias.has_value()) return;
  check_like(op, "row_bias", *row_bias, "x", x);
  check_vector(op, "row_bias", *row_bias, x.sym_size(0));
}

}  // namespace block_linear_op

bool is_feature_major(const at::Tensor& x) {
  if (x.dim() < 2 || x.is_contiguous()) return false;
  c10::SymInt expected = 1;
  for (int64_t d = x.dim() - 2; d >= 0; --d) {
    if (x.sym_size(d) != 1 && x.sym_stride(d) != expected) return false;
    expected = expected * x.sym_size(d);
  }
  return x.sym_stride(-1) == expected;
}

namespace composite {
namespace {

// [..., B k] -> [B, n, k]: what each block reads.
at::Tensor split(const at::Tensor& x, int64_t blocks, bool interleaved) {
  const int64_t features = x.size(-1), each = features / blocks;
  const at::Tensor flat = x.reshape({features == 0 ? 0 : x.numel() / features, features});
  return interleaved ? flat.reshape({-1, each, blocks}).permute({2, 0, 1})
                     : flat.reshape({-1, blocks, each}).permute({1, 0, 2});
}

// [B, n, m] -> [n, B m]: the inverse.
at::Tensor join(const at::Tensor& y, bool interleaved) {
  return (interleaved ? y.permute({1, 2, 0}) : y.permute({1, 0, 2})).flatten(1);
}

}  // namespace

at::Tensor block_linear(const at::Tensor& x, const at::Tensor& weight, bool interleaved_in,
                        bool interleaved_out, bool feature_major) {
  block_linear_op::check("block_linear", x, weight);
  const int64_t blocks = weight.size(0);
  const at::Tensor y =
      join(at::bmm(split(x, blocks, interleaved_in), weight.transpose(1, 2)), interleaved_out);
  auto sizes = x.sizes().vec();
  sizes.back() = y.size(1);
  if (!feature_major) return y.contiguous().view(sizes);
  return y.t().contiguous().t().view(sizes);
}

std::tuple<at::Tensor, at::Tensor> block_linear_backward(const at::Tensor& grad,
                                                         const at::Tensor& x,
                                                         const at::Tensor& weight,
                                                         bool interleaved_in, bool interleaved_out,
                                                         std::array<bool, 2> wanted) {
  block_linear_op::check_backward("block_linear_backward", grad, x, weight);
  at::Tensor grad_x, grad_weight;
  const int64_t blocks = weight.size(0);
  const at::Tensor g = split(grad, blocks, interleaved_out);
  if (wanted[0]) {
    grad_x = join(at::bmm(g, weight), interleaved_in).reshape(x.sizes());
    if (is_feature_major(x)) {
      grad_x = transposed_copy(grad_x.flatten(0, -2), {}).t().view(x.sizes());
    }
  }
  if (wanted[1]) grad_weight = at::bmm(g.transpose(1, 2), split(x, blocks, interleaved_in));
  return {grad_x, grad_weight};
}

at::Tensor transposed_copy(const at::Tensor& x, const std::optional<at::Tensor>& row_bias) {
  block_linear_op::check_matrix(x, row_bias);
  if (!row_bias.has_value()) return x.t().clone(at::MemoryFormat::Contiguous);
  return x.t().add(*row_bias).contiguous();
}

}  // namespace composite

namespace {
// The schema's own argument list.
using Forward = at::Tensor(const at::Tensor&, const at::Tensor&, bool, bool, bool);
using Backward = std::tuple<at::Tensor, at::Tensor>(const at::Tensor&, const at::Tensor&,
                                                    const at::Tensor&, bool, bool,
                                                    std::array<bool, 2>);
}  // namespace

at::Tensor block_linear(const at::Tensor& x, const at::Tensor& weight, BlockLayout layout) {
  static const auto op = find_op<Forward>("refract::block_linear");
  return op.call(x, weight, layout.interleaved_in, layout.interleaved_out, layout.feature_major);
}

std::tuple<at::Tensor, at::Tensor> block_linear_backward(const at::Tensor& grad,
                                                         const at::Tensor& x,
                                                         const at::Tensor& weight,
                                                         BlockLayout layout,
                                                         std::array<bool, 2> wanted) {
  static const auto op = find_op<Backward>("refract::block_linear_backward");
  return op.call(grad, x, weight, layout.interleaved_in, layout.interleaved_out, wanted);
}

at::Tensor transposed_copy(const at::Tensor& x, const std::optional<at::Tensor>& row_bias) {
  static const auto op = find_op<decltype(transposed_copy)>("refract::transposed_copy");
  return op.call(x, row_bias);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct BlockLinear : torch::autograd::Function<BlockLinear> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& weight,
                            bool interleaved_in, bool interleaved_out, bool feature_major) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({x, weight});
    ctx->saved_data["in"] = interleaved_in;
    ctx->saved_data["out"] = interleaved_out;
    return block_linear(x, weight, {interleaved_in, interleaved_out, feature_major});
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_weight] = block_linear_backward(
        grads[0], saved[0], saved[1],
        {ctx->saved_data["in"].toBool(), ctx->saved_data["out"].toBool(), false},
        {ctx->needs_input_grad(0), ctx->needs_input_grad(1)});
    return {grad_x, grad_weight, at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor block_linear_autograd(const at::Tensor& x, const at::Tensor& weight, bool interleaved_in,
                                 bool interleaved_out, bool feature_major) {
  if (any_gradient(x, weight)) {
    return BlockLinear::apply(x, weight, interleaved_in, interleaved_out, feature_major);
  }
  at::AutoDispatchBelowADInplaceOrView below;
  return block_linear(x, weight, {interleaved_in, interleaved_out, feature_major});
}

// Feature-major strides for `sizes` need no copy: empty [features, rest], seen from the other side.
at::Tensor empty_feature_major(const std::vector<c10::SymInt>& sizes, const at::Tensor& like) {
  std::vector<c10::SymInt> stored = {sizes.back()};
  stored.insert(stored.end(), sizes.begin(), sizes.end() - 1);
  return at::empty_symint(stored, like.options()).movedim(0, -1);
}

at::Tensor block_linear_meta(const at::Tensor& x, const at::Tensor& weight, bool, bool,
                             bool feature_major) {
  block_linear_op::check("block_linear", x, weight);
  auto sizes = x.sym_sizes().vec();
  sizes.back() = weight.sym_size(0) * weight.sym_size(1);
  return feature_major ? empty_feature_major(sizes, x) : at::empty_symint(sizes, x.options());
}

std::tuple<at::Tensor, at::Tensor> block_linear_backward_meta(const at::Tensor& grad,
                                                              const at::Tensor& x,
                                                              const at::Tensor& weight, bool, bool,
                                                              std::array<bool, 2> wanted) {
  block_linear_op::check_backward("block_linear_backward", grad, x, weight);
  at::Tensor grad_x, grad_weight;
  if (wanted[0]) {
    grad_x = is_feature_major(x) ? empty_feature_major(x.sym_sizes().vec(), x)
                                 : at::empty_symint(x.sym_sizes(), x.options());
  }
  if (wanted[1]) grad_weight = at::empty_symint(weight.sym_sizes(), x.options());
  return {grad_x, grad_weight};
}

at::Tensor transposed_copy_meta(const at::Tensor& x, const std::optional<at::Tensor>& row_bias) {
  block_linear_op::check_matrix(x, row_bias);
  return at::empty_symint({x.sym_size(1), x.sym_size(0)}, x.options());
}

struct TransposedCopy : torch::autograd::Function<TransposedCopy> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x,
                            const std::optional<at::Tensor>& row_bias) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->saved_data["bias"] = wants_gradient(row_bias);
    return transposed_copy(x, row_bias);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    at::Tensor grad_bias;
    if (ctx->saved_data["bias"].toBool()) grad_bias = grads[0].sum(0);
    return {transposed_copy(grads[0]), grad_bias};
  }
};

at::Tensor transposed_copy_autograd(const at::Tensor& x,
                                    const std::optional<at::Tensor>& row_bias) {
  if (any_gradient(x, row_bias)) return TransposedCopy::apply(x, row_bias);
  at::AutoDispatchBelowADInplaceOrView below;
  return transposed_copy(x, row_bias);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "block_linear(Tensor x, Tensor weight, bool interleaved_in=False, bool interleaved_out=False,"
      " bool feature_major=False) -> Tensor");
  m.def(
      "block_linear_backward(Tensor grad, Tensor x, Tensor weight, bool interleaved_in,"
      " bool interleaved_out, bool[2] wanted) -> (Tensor grad_x, Tensor grad_weight)");
  m.def("transposed_copy(Tensor x, Tensor? row_bias=None) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("block_linear", composite::block_linear);
  m.impl("block_linear_backward", composite::block_linear_backward);
  m.impl("transposed_copy", composite::transposed_copy);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) {
  m.impl("block_linear", block_linear_autograd);
  m.impl("transposed_copy", transposed_copy_autograd);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("block_linear", block_linear_meta);
  m.impl("block_linear_backward", block_linear_backward_meta);
  m.impl("transposed_copy", transposed_copy_meta);
}

}  // namespace refract
