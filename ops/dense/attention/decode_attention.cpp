// Schema, checks and composite form of decode_attention.
#include "ops/dense/attention/decode_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

#include "ops/common/call.h"

namespace refract {

namespace decode_attention_op {

void check(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
           const at::Tensor& lengths) {
  TORCH_CHECK(keys.dim() == 4 && keys.sym_sizes() == values.sym_sizes(),
              "refract::decode_attention: expected keys and values of one shape [B, K, S, D], got ",
              keys.sym_sizes(), " and ", values.sym_sizes());
  TORCH_CHECK(q.dim() == 3 && q.sym_size(0) == keys.sym_size(0) &&
                  q.sym_size(2) == keys.sym_size(3) && q.sym_size(1) % keys.sym_size(1) == 0,
              "refract::decode_attention: expected q [", keys.sym_size(0), ", a multiple of ",
              keys.sym_size(1), ", ", keys.sym_size(3), "], got ", q.sym_sizes());
  TORCH_CHECK(lengths.scalar_type() == at::kLong && lengths.dim() == 1 &&
                  lengths.sym_size(0) == q.sym_size(0) && lengths.device() == q.device(),
              "refract::decode_attention: expected lengths as int64 [", q.sym_size(0), "] on ",
              q.device(), ", got ", lengths.scalar_type(), " ", lengths.sym_sizes(), " on ",
              lengths.device());
  TORCH_CHECK(q.scalar_type() == keys.scalar_type() && q.scalar_type() == values.scalar_type() &&
                  q.device() == keys.device() && q.device() == values.device(),
              "refract::decode_attention: expected q, keys and values of one type on one device, "
              "got ",
              q.scalar_type(), ", ", keys.scalar_type(), ", ", values.scalar_type(), " on ",
              q.device(), ", ", keys.device(), ", ", values.device());
}

}  // namespace decode_attention_op

// The query heads of a key head stand as its queries, so that keys need not be repeated.
at::Tensor composite::decode_attention(const at::Tensor& q, const at::Tensor& keys,
                                       const at::Tensor& values, const at::Tensor& lengths,
                                       double scale) {
  decode_attention_op::check(q, keys, values, lengths);
  const int64_t batch = q.size(0), places = keys.size(2);
  const at::Tensor queries = q.reshape({batch, keys.size(1), q.size(1) / keys.size(1), q.size(2)});
  const at::Tensor mask = at::arange(places, lengths.options()).le(lengths.unsqueeze(1));
  const at::Tensor out = at::scaled_dot_product_attention(
      queries, keys, values,
      mask.view({batch, 1, 1, places}).expand({batch, 1, queries.size(2), places}), 0.0, false,
      scale);
  return out.reshape(q.sizes());
}

at::Tensor decode_attention(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values,
                            const at::Tensor& lengths, double scale) {
  static const auto op = find_op<decltype(decode_attention)>("refract::decode_attention");
  return op.call(q, keys, values, lengths, scale);
}

namespace {

at::Tensor decode_attention_meta(const at::Tensor& q, const at::Tensor& keys,
                                 const at::Tensor& values, const at::Tensor& lengths, double) {
  decode_attention_op::check(q, keys, values, lengths);
  return at::empty_symint(q.sym_sizes(), q.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "decode_attention(Tensor q, Tensor keys, Tensor values, Tensor lengths, float scale)"
      " -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("decode_attention", composite::decode_attention);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("decode_attention", decode_attention_meta); }

}  // namespace refract
