// Schema, checks, composite form and autograd of causal_attention.
#include "ops/dense/attention/attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <limits>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

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

void check_backward(const CausalAttentionBackwardInputs& in) {
  check(in.qkv, in.num_heads, in.num_kv_heads);
  check_like("causal_attention_backward", "grad", in.grad, "qkv", in.qkv);
  const c10::SymInt width =
      in.qkv.sym_size(2) / (in.num_heads + 2 * in.num_kv_heads) * in.num_heads;
  TORCH_CHECK(in.grad.dim() == 3 && in.grad.sym_size(0) == in.qkv.sym_size(0) &&
                  in.grad.sym_size(1) == in.qkv.sym_size(1) && in.grad.sym_size(2) == width,
              "refract::causal_attention_backward: expected grad of shape [", in.qkv.sym_size(0),
              ", ", in.qkv.sym_size(1), ", ", width, "], got ", in.grad.sym_sizes());
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

at::Tensor causal_attention(const CausalAttentionInputs& in) {
  causal_attention_op::check(in.qkv, in.num_heads, in.num_kv_heads);
  if (in.qkv.numel() == 0) {
    return at::empty({in.qkv.size(0), in.qkv.size(1),
                      in.qkv.size(2) / (in.num_heads + 2 * in.num_kv_heads) * in.num_heads},
                     in.qkv.options());
  }
  const Parts parts = parts_of(in.qkv, in.num_heads, in.num_kv_heads, in.scale);
  return side_by_side(at::matmul(parts.probabilities, parts.v))
      .to(in.qkv.scalar_type())
      .contiguous();
}

at::Tensor causal_attention_backward(const CausalAttentionBackwardInputs& in) {
  causal_attention_op::check_backward(in);
  if (in.qkv.numel() == 0) return at::empty(in.qkv.sizes(), in.qkv.options());
  const Parts parts = parts_of(in.qkv, in.num_heads, in.num_kv_heads, in.scale);
  const at::Tensor& p = parts.probabilities;
  const at::Tensor g =
      heads_of(in.grad, 0, in.num_kv_heads, in.num_heads / in.num_kv_heads, parts.q.size(-1));
  const at::Tensor dp = at::matmul(g, parts.v.transpose(-1, -2));
  const at::Tensor ds = p.mul(dp.sub(p.mul(dp).sum({-1}, true))).mul(in.scale);
  const at::Tensor dq = at::matmul(ds, parts.k);
  const at::Tensor dk = at::matmul(ds.transpose(-1, -2), parts.q).sum({2}, true);
  const at::Tensor dv = at::matmul(p.transpose(-1, -2), g).sum({2}, true);
  return at::cat({side_by_side(dq), side_by_side(dk), side_by_side(dv)}, -1)
      .to(in.qkv.scalar_type())
      .contiguous();
}

}  // namespace composite

namespace {

struct CausalAttention {
  static at::Tensor forward(AutogradContext* ctx, const CausalAttentionInputs& in) {
    ctx->save_for_backward({in.qkv});
    ctx->saved_data["num_heads"] = in.num_heads;
    ctx->saved_data["num_kv_heads"] = in.num_kv_heads;
    ctx->saved_data["scale"] = in.scale;
    return causal_attention(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& data = ctx->saved_data;
    return {causal_attention_backward(grads[0], ctx->get_saved_variables()[0],
                                      data.at("num_heads").toInt(), data.at("num_kv_heads").toInt(),
                                      data.at("scale").toDouble())};
  }
};

at::Tensor causal_attention_autograd(const CausalAttentionInputs& in) {
  return recorded<CausalAttention>(causal_attention, in, in.qkv);
}

at::Tensor causal_attention_meta(const CausalAttentionInputs& in) {
  causal_attention_op::check(in.qkv, in.num_heads, in.num_kv_heads);
  auto sizes = in.qkv.sym_sizes().vec();
  sizes[2] = sizes[2] / (in.num_heads + 2 * in.num_kv_heads) * in.num_heads;
  return at::empty_symint(sizes, in.qkv.options());
}

at::Tensor causal_attention_backward_meta(const CausalAttentionBackwardInputs& in) {
  causal_attention_op::check_backward(in);
  return at::empty_symint(in.qkv.sym_sizes(), in.qkv.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, causal_attention,
         "(Tensor qkv, int num_heads, int num_kv_heads, float scale) -> Tensor")
      .composite<composite::causal_attention>()
      .autograd<causal_attention_autograd>()
      .meta<causal_attention_meta>();
  define(m, causal_attention_backward,
         "(Tensor grad, Tensor qkv, int num_heads, int num_kv_heads, float scale) -> Tensor")
      .composite<composite::causal_attention_backward>()
      .meta<causal_attention_backward_meta>();
}

}  // namespace refract
