// Samples for tests/parity/test_every_op.py:
// opcheck: decode_attention(plain(2, 4, 8), plain(2, 2, 5, 8), plain(2, 2, 5, 8),
//   torch.tensor([1, 4]), 0.3)
#include "ops/dense/attention/decode_attention.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>

#include "support/compare.h"

namespace refract {
namespace dense_decode_attention_test {

using testing::name_of;
using testing::normal;

struct Case {
  int64_t batch, heads, key_heads, places, head_dim;
};
const Case kCases[] = {{1, 1, 1, 1, 8},     {2, 4, 2, 7, 64},    {3, 8, 4, 300, 64},
                       {5, 12, 2, 33, 128}, {2, 16, 1, 65, 256}, {1, 3, 3, 129, 96},
                       {700, 4, 1, 40, 64}, {2, 6, 2, 20, 12},   {0, 2, 1, 4, 64}};

// Lengths from 0 to the last place, both of them among these.
at::Tensor lengths_of(const Case& c) {
  return at::arange(c.batch, at::kLong).mul(13).add(c.places - 1).remainder(c.places);
}

struct Inputs {
  at::Tensor q, keys, values, lengths;
};

Inputs inputs(const Case& c, at::ScalarType dtype) {
  const std::vector<int64_t> shape = {c.batch, c.key_heads, c.places + 3, c.head_dim};
  // As a layer has them: queries inside a row of q, k and v, and a cache that is longer.
  const at::Tensor qkv = normal({c.batch, (c.heads + 2 * c.key_heads) * c.head_dim}, dtype);
  return {qkv.narrow(1, 0, c.heads * c.head_dim).unflatten(1, {c.heads, c.head_dim}),
          normal(shape, dtype).narrow(2, 0, c.places), normal(shape, dtype).narrow(2, 0, c.places),
          lengths_of(c)};
}

// Each sequence and head by itself, in float64.
at::Tensor by_definition(const Inputs& in, double scale) {
  at::Tensor out = at::full(in.q.sizes(), 0.0, at::kDouble);
  const int64_t group = in.q.size(1) / in.keys.size(1);
  for (int64_t b = 0; b < in.q.size(0); ++b) {
    const int64_t count = in.lengths[b].item<int64_t>() + 1;
    for (int64_t h = 0; h < in.q.size(1); ++h) {
      const at::Tensor k = in.keys[b][h / group].narrow(0, 0, count).to(at::kDouble);
      const at::Tensor v = in.values[b][h / group].narrow(0, 0, count).to(at::kDouble);
      const at::Tensor p = at::softmax(at::matmul(k, in.q[b][h].to(at::kDouble)).mul(scale), 0);
      out[b][h].copy_(at::matmul(p, v));
    }
  }
  return out.to(in.q.scalar_type());
}

TEST(DecodeAttention, FollowsItsDefinition) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      const Inputs in = inputs(c, dtype);
      testing::expect_close(decode_attention(in.q, in.keys, in.values, in.lengths, 0.3),
                            by_definition(in, 0.3), name_of(dtype), 2);
    }
  }
}

TEST(DecodeAttention, CudaFollowsItsDefinition) {
  REFRACT_CUDA_OR_SKIP();
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      const Inputs in = inputs(c, dtype);
      // The cache keeps what lies behind it, so that the kernel sees the same strides.
      const auto cache = [](const at::Tensor& t) {
        at::Tensor whole = at::full({t.size(0), t.size(1), t.size(2) + 3, t.size(3)}, NAN,
                                    t.options().device(at::kCUDA));
        whole.narrow(2, 0, t.size(2)).copy_(t);
        return whole.narrow(2, 0, t.size(2));
      };
      const at::Tensor out = decode_attention(in.q.to(at::kCUDA), cache(in.keys), cache(in.values),
                                              in.lengths.to(at::kCUDA), 0.3);
      testing::expect_close(out.cpu(), by_definition(in, 0.3),
                            std::to_string(c.head_dim) + " " + name_of(dtype), 2);
    }
  }
}

TEST(DecodeAttention, NamesWhatIsWrong) {
  const Inputs in = inputs({2, 4, 2, 7, 64}, at::kFloat);
  EXPECT_THROW(decode_attention(in.q, in.keys, in.values, in.lengths.to(at::kInt), 1), c10::Error);
  EXPECT_THROW(decode_attention(in.q.narrow(1, 0, 3), in.keys, in.values, in.lengths, 1),
               c10::Error);
  EXPECT_THROW(decode_attention(in.q.to(at::kDouble), in.keys, in.values, in.lengths, 1),
               c10::Error);
}

}  // namespace dense_decode_attention_test
}  // namespace refract
