// Schema, checks, composite form and autograd of causal_attention.
#include "ops/dense/attention/attention.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <limits>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace causal_attention_op {

void check(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads) {
  check_floating("causal_attention", "qkv", qkv);
  TORCH_CHECK(num_heads > 0 && num_kv_heads > 0 && num_heads % num_kv_heads == 0,
              "refract::causal_attention: expected num_kv_heads to divide num_heads, got ",
              num_kv_heads, " and ", num_heads);
  TORCH_CHECK(qkv.dim() == 3 && qkv.sym_size(2) % (num_heads + 2 * num_kv_heads) == 0,
              "refract::causal_attention: expected qkv of shape [B, T, ",
              num_heads + 2 * num_kv_heads, " * D], got ", qkv.sym_sizes());
}

void check_backward(const at::Tensor& grad, const at::Tensor& qkv, int64_t num_heads,
                    int64_t num_kv_heads) {
  check(qkv, num_heads, num_kv_heads);
  check_like("causal_attention_backward", "grad", grad, "qkv", qkv);
  const c10::SymInt width = qkv.sym_size(2) / (num_heads + 2 * num_kv_heads) * num_heads;
  TORCH_CHECK(grad.dim() == 3 && grad.sym_size(0) == qkv.sym_size(0) &&
                  grad.sym_size(1) == qkv.sym_size(1) && grad.sym_size(2) == width,
              "refract::causal_attention_backward: expected grad of shape [", qkv.sym_size(0), ", ",
              qkv.sym_size(1), ", ", width, "], got ", grad.sym_sizes());
}

}  // namespace causal_attention_op

namespace composite {
namespace {

// The parts as [B, K, G, T, D] (q) and [B, K, 1, T, D] (k, v) with G = H / K, in the type that is
// computed in.
struct Parts {
  at::Tensor q, k, v, probabilities;
};

at::Tensor heads_of(const at::Tensor& qkv, int64_t first, int64_t num_kv_heads, int64_t group,
                    int64_t head_dim) {
  const at::ScalarType wide = qkv.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return qkv.narrow(2, first * head_dim, num_kv_heads * group * head_dim)
      .to(wide)
      .reshape({qkv.size(0), qkv.size(1), num_kv_heads, group, head_dim})
      .permute({0, 2, 3, 1, 4});
}

Parts parts_of(const at::Tensor& qkv, int64_t H, int64_t K, double scale) {
  const int64_t D = qkv.size(2) / (H + 2 * K), T = qkv.size(1);
  Parts parts{
      heads_of(qkv, 0, K, H / K, D), heads_of(qkv, H, K, 1, D), heads_of(qkv, H + K, K, 1, D), {}};
  const at::Tensor hidden = at::ones({T, T}, qkv.options().dtype(at::kBool)).triu(1);
  parts.probabilities =
      at::softmax(at::matmul(parts.q, parts.k.transpose(-1, -2))
                      .mul(scale)
                      .masked_fill(hidden, -std::numeric_limits<double>::infinity()),
                  -1);
  return parts;
}

// [B, K, G, T, D] -> [B, T, K G D].
at::Tensor side_by_side(const at::Tensor& x) {
  return x.permute({0, 3, 1, 2, 4}).reshape({x.size(0), x.size(3), -1});
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                            double scale) {
  causal_attention_op::check(qkv, num_heads, num_kv_heads);
  if (qkv.numel() == 0) {
    return at::empty(
        {qkv.size(0), qkv.size(1), qkv.size(2) / (num_heads + 2 * num_kv_heads) * num_heads},
        qkv.options());
  }
  const Parts parts = parts_of(qkv, num_heads, num_kv_heads, scale);
  return side_by_side(at::matmul(parts.probabilities, parts.v)).to(qkv.scalar_type()).contiguous();
}

at::Tensor causal_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                     int64_t num_heads, int64_t num_kv_heads, double scale) {
  causal_attention_op::check_backward(grad, qkv, num_heads, num_kv_heads);
  if (qkv.numel() == 0) return at::empty(qkv.sizes(), qkv.options());
  const Parts parts = parts_of(qkv, num_heads, num_kv_heads, scale);
  const at::Tensor& p = parts.probabilities;
  const at::Tensor g = heads_of(grad, 0, num_kv_heads, num_heads / num_kv_heads, parts.q.size(-1));
  const at::Tensor dp = at::matmul(g, parts.v.transpose(-1, -2));
  const at::Tensor ds = p.mul(dp.sub(p.mul(dp).sum({-1}, true))).mul(scale);
  const at::Tensor dq = at::matmul(ds, parts.k);
  const at::Tensor dk = at::matmul(ds.transpose(-1, -2), parts.q).sum({2}, true);
  const at::Tensor dv = at::matmul(p.transpose(-1, -2), g).sum({2}, true);
  return at::cat({side_by_side(dq), side_by_side(dk), side_by_side(dv)}, -1)
      .to(qkv.scalar_type())
      .contiguous();
}

}  // namespace composite

at::Tensor causal_attention(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                            double scale) {
  static const auto op = find_op<decltype(causal_attention)>("refract::causal_attention");
  return op.call(qkv, num_heads, num_kv_heads, scale);
}

at::Tensor causal_attention_backward(const at::Tensor& grad, const at::Tensor& qkv,
                                     int64_t num_heads, int64_t num_kv_heads, double scale) {
  static const auto op =
      find_op<decltype(causal_attention_backward)>("refract::causal_attention_backward");
  return op.call(grad, qkv, num_heads, num_kv_heads, scale);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct CausalAttention : torch::autograd::Function<CausalAttention> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& qkv, int64_t num_heads,
                            int64_t num_kv_heads, double scale) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({qkv});
    ctx->saved_data["num_heads"] = num_heads;
    ctx->saved_data["num_kv_heads"] = num_kv_heads;
    ctx->saved_data["scale"] = scale;
    return causal_attention(qkv, num_heads, num_kv_heads, scale);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& data = ctx->saved_data;
    return {causal_attention_backward(grads[0], ctx->get_saved_variables()[0],
                                      data.at("num_heads").toInt(), data.at("num_kv_heads").toInt(),
                                      data.at("scale").toDouble()),
            at::Tensor(), at::Tensor(), at::Tensor()};
  }
};

at::Tensor causal_attention_autograd(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                     double scale) {
  if (any_gradient(qkv)) return CausalAttention::apply(qkv, num_heads, num_kv_heads, scale);
  at::AutoDispatchBelowADInplaceOrView below;
  return causal_attention(qkv, num_heads, num_kv_heads, scale);
}

at::Tensor causal_attention_meta(const at::Tensor& qkv, int64_t num_heads, int64_t num_kv_heads,
                                 double) {
  causal_attention_op::check(qkv, num_heads, num_kv_heads);
  auto sizes = qkv.sym_sizes().vec();
  sizes[2] = sizes[2] / (num_heads + 2 * num_kv_heads) * num_heads;
  return at::empty_symint(sizes, qkv.options());
}

at::Tensor causal_attention_backward_meta(const at::Tensor& grad, const at::Tensor& qkv,
                                          int64_t num_heads, int64_t num_kv_heads, double) {
  causal_attention_op::check_backward(grad, qkv, num_heads, num_kv_heads);
  return at::empty_symint(qkv.sym_sizes(), qkv.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("causal_attention(Tensor qkv, int num_heads, int num_kv_heads, float scale) -> Tensor");
  m.def(
      "causal_attention_backward(Tensor grad, Tensor qkv, int num_heads, int num_kv_heads,"
      " float scale) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("causal_attention", composite::causal_attention);
  m.impl("causal_attention_backward", composite::causal_attention_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("causal_attention", causal_attention_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) {
  m.impl("causal_attention", causal_attention_meta);
  m.impl("causal_attention_backward", causal_attention_backward_meta);
}

}  // namespace refract
