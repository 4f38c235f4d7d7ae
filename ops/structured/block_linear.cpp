// Schema, checks, composite forms and autograd of block_linear.
#include "ops/structured/block_linear.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/structured/transposed_copy.h"

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

void check_backward(const BlockLinearBackwardInputs& in) {
  const char* op = "block_linear_backward";
  check(op, in.x, in.weight);
  check_like(op, "grad", in.grad, "x", in.x);
  TORCH_CHECK(in.grad.dim() == in.x.dim() &&
                  in.grad.sym_size(-1) == in.weight.sym_size(0) * in.weight.sym_size(1),
              "refract::", op, ": expected grad of the output's shape for x of shape ",
              in.x.sym_sizes(), " and a weight of shape ", in.weight.sym_sizes(), ", got ",
              in.grad.sym_sizes());
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

at::Tensor block_linear(const BlockLinearInputs& in) {
  block_linear_op::check("block_linear", in.x, in.weight);
  const int64_t blocks = in.weight.size(0);
  const at::Tensor y =
      join(at::bmm(split(in.x, blocks, in.layout.interleaved_in), in.weight.transpose(1, 2)),
           in.layout.interleaved_out);
  auto sizes = in.x.sizes().vec();
  sizes.back() = y.size(1);
  if (!in.layout.feature_major) return y.contiguous().view(sizes);
  return y.t().contiguous().t().view(sizes);
}

BlockLinearGradients block_linear_backward(const BlockLinearBackwardInputs& in) {
  block_linear_op::check_backward(in);
  at::Tensor grad_x, grad_weight;
  const int64_t blocks = in.weight.size(0);
  const at::Tensor g = split(in.grad, blocks, in.interleaved_out);
  if (in.wanted[0]) {
    grad_x = join(at::bmm(g, in.weight), in.interleaved_in).reshape(in.x.sizes());
    if (is_feature_major(in.x)) {
      grad_x = transposed_copy({grad_x.flatten(0, -2)}).t().view(in.x.sizes());
    }
  }
  if (in.wanted[1])
    grad_weight = at::bmm(g.transpose(1, 2), split(in.x, blocks, in.interleaved_in));
  return {grad_x, grad_weight};
}

}  // namespace composite

namespace {

struct BlockLinear {
  static at::Tensor forward(AutogradContext* ctx, const BlockLinearInputs& in) {
    ctx->save_for_backward({in.x, in.weight});
    ctx->saved_data["in"] = in.layout.interleaved_in;
    ctx->saved_data["out"] = in.layout.interleaved_out;
    return block_linear(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    auto [grad_x, grad_weight] = block_linear_backward(
        grads[0], saved[0], saved[1], ctx->saved_data["in"].toBool(),
        ctx->saved_data["out"].toBool(), {ctx->needs_input_grad(0), ctx->needs_input_grad(1)});
    return {grad_x, grad_weight};
  }
};

at::Tensor block_linear_autograd(const BlockLinearInputs& in) {
  return recorded<BlockLinear>(block_linear, in, in.x, in.weight);
}

// Feature-major strides for `sizes` need no copy: empty [features, rest], seen from the other side.
at::Tensor empty_feature_major(const std::vector<c10::SymInt>& sizes, const at::Tensor& like) {
  std::vector<c10::SymInt> stored = {sizes.back()};
  stored.insert(stored.end(), sizes.begin(), sizes.end() - 1);
  return at::empty_symint(stored, like.options()).movedim(0, -1);
}

at::Tensor block_linear_meta(const BlockLinearInputs& in) {
  block_linear_op::check("block_linear", in.x, in.weight);
  auto sizes = in.x.sym_sizes().vec();
  sizes.back() = in.weight.sym_size(0) * in.weight.sym_size(1);
  return in.layout.feature_major ? empty_feature_major(sizes, in.x)
                                 : at::empty_symint(sizes, in.x.options());
}

BlockLinearGradients block_linear_backward_meta(const BlockLinearBackwardInputs& in) {
  block_linear_op::check_backward(in);
  at::Tensor grad_x, grad_weight;
  if (in.wanted[0]) {
    grad_x = is_feature_major(in.x) ? empty_feature_major(in.x.sym_sizes().vec(), in.x)
                                    : at::empty_symint(in.x.sym_sizes(), in.x.options());
  }
  if (in.wanted[1]) grad_weight = at::empty_symint(in.weight.sym_sizes(), in.x.options());
  return {grad_x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, block_linear,
         "(Tensor x, Tensor weight, bool interleaved_in=False, bool interleaved_out=False,"
         " bool feature_major=False) -> Tensor")
      .composite<composite::block_linear>()
      .autograd<block_linear_autograd>()
      .meta<block_linear_meta>();
  define(m, block_linear_backward,
         "(Tensor grad, Tensor x, Tensor weight, bool interleaved_in, bool interleaved_out,"
         " bool[2] wanted) -> (Tensor grad_x, Tensor grad_weight)")
      .composite<composite::block_linear_backward>()
      .meta<block_linear_backward_meta>();
}

}  // namespace refract
