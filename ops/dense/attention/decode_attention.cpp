// Schema, checks and composite form of decode_attention.
#include "ops/dense/attention/decode_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include "ops/common/define.h"

namespace refract {

namespace decode_attention_op {

void check(const DecodeAttentionInputs& in) {
  TORCH_CHECK(in.keys.dim() == 4 && in.keys.sym_sizes() == in.values.sym_sizes(),
              "refract::decode_attention: expected keys and values of one shape [B, K, S, D], got ",
              in.keys.sym_sizes(), " and ", in.values.sym_sizes());
  TORCH_CHECK(in.q.dim() == 3 && in.q.sym_size(0) == in.keys.sym_size(0) &&
                  in.q.sym_size(2) == in.keys.sym_size(3) &&
                  in.q.sym_size(1) % in.keys.sym_size(1) == 0,
              "refract::decode_attention: expected q [", in.keys.sym_size(0), ", a multiple of ",
              in.keys.sym_size(1), ", ", in.keys.sym_size(3), "], got ", in.q.sym_sizes());
  TORCH_CHECK(in.lengths.scalar_type() == at::kLong && in.lengths.dim() == 1 &&
                  in.lengths.sym_size(0) == in.q.sym_size(0) &&
                  in.lengths.device() == in.q.device(),
              "refract::decode_attention: expected lengths as int64 [", in.q.sym_size(0), "] on ",
              in.q.device(), ", got ", in.lengths.scalar_type(), " ", in.lengths.sym_sizes(),
              " on ", in.lengths.device());
  TORCH_CHECK(in.q.scalar_type() == in.keys.scalar_type() &&
                  in.q.scalar_type() == in.values.scalar_type() &&
                  in.q.device() == in.keys.device() && in.q.device() == in.values.device(),
              "refract::decode_attention: expected q, keys and values of one type on one device, "
              "got ",
              in.q.scalar_type(), ", ", in.keys.scalar_type(), ", ", in.values.scalar_type(),
              " on ", in.q.device(), ", ", in.keys.device(), ", ", in.values.device());
}

}  // namespace decode_attention_op

// The query heads of a key head stand as its queries, so that keys need not be repeated.
at::Tensor composite::decode_attention(const DecodeAttentionInputs& in) {
  decode_attention_op::check(in);
  const int64_t batch = in.q.size(0), places = in.keys.size(2);
  const at::Tensor queries =
      in.q.reshape({batch, in.keys.size(1), in.q.size(1) / in.keys.size(1), in.q.size(2)});
  const at::Tensor mask = at::arange(places, in.lengths.options()).le(in.lengths.unsqueeze(1));
  const at::Tensor out = at::scaled_dot_product_attention(
      queries, in.keys, in.values,
      mask.view({batch, 1, 1, places}).expand({batch, 1, queries.size(2), places}), 0.0, false,
      in.scale);
  return out.reshape(in.q.sizes());
}

namespace {

at::Tensor decode_attention_meta(const DecodeAttentionInputs& in) {
  decode_attention_op::check(in);
  return at::empty_symint(in.q.sym_sizes(), in.q.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, decode_attention,
         "(Tensor q, Tensor keys, Tensor values, Tensor lengths, float scale) -> Tensor")
      .composite<composite::decode_attention>()
      .meta<decode_attention_meta>();
}

}  // namespace refract
