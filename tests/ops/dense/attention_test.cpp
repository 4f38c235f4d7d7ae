// Samples for tests/parity/test_every_op.py:
// opcheck: causal_attention(normal(2, 5, 64), 4, 2, 0.4)
// opcheck: causal_attention_backward(plain(2, 5, 32), plain(2, 5, 64), 4, 2, 0.4)
#include "ops/dense/attention/attention.h"

#include "support/compare.h"
#include "support/cuda_guard.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_attention_test {

using testing::identical;
using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Case {
  int64_t batch, length, heads, kv_heads, head_dim;
};
// Lengths and widths below, at and beside whole vectors and tiles of every instruction set.
const Case kCases[] = {{32, 8, 4, 4, 16}, {1, 1, 1, 1, 8},    {2, 9, 6, 2, 5},   {3, 17, 4, 1, 32},
                       {2, 64, 6, 6, 32}, {1, 128, 2, 2, 64}, {2, 31, 3, 3, 80}, {0, 4, 2, 2, 16}};

at::Tensor joint(const Case& c, at::ScalarType dtype) {
  return normal({c.batch, c.length, (c.heads + 2 * c.kv_heads) * c.head_dim}, dtype);
}

template <class F>
void for_all(F f) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      f(c, joint(c, dtype), normal({c.batch, c.length, c.heads * c.head_dim}, dtype),
        "attention T " + std::to_string(c.length) + " D " + std::to_string(c.head_dim) + " " +
            name_of(dtype));
    }
  }
}

constexpr double kScale = 0.37;

TEST(CausalAttention, CpuAgreesWithComposite) {
  for_all([](const Case& c, const at::Tensor& qkv, const at::Tensor& grad,
             const std::string& what) {
    testing::expect_close(causal_attention(qkv, c.heads, c.kv_heads, kScale),
                          composite::causal_attention({qkv, c.heads, c.kv_heads, kScale}), what);
    testing::expect_close(
        causal_attention_backward(grad, qkv, c.heads, c.kv_heads, kScale),
        composite::causal_attention_backward({grad, qkv, c.heads, c.kv_heads, kScale}),
        what + " backward");
  });
}

TEST(CausalAttention, CudaAgreesWithComposite) {
  REFRACT_CUDA_OR_SKIP();
  const auto expect = [](const Case& c, const at::Tensor& joint, const std::string& what) {
    const at::Tensor qkv = joint.cuda();
    testing::expect_close(causal_attention(qkv, c.heads, c.kv_heads, kScale),
                          composite::causal_attention({qkv, c.heads, c.kv_heads, kScale}), what);
  };
  for_all([&](const Case& c, const at::Tensor& qkv, const at::Tensor&, const std::string& what) {
    expect(c, qkv, what);
  });
  for (const Case& c : {Case{1001, 8, 4, 4, 8}, Case{37, 7, 6, 3, 16}, Case{9, 33, 8, 2, 64},
                        Case{5, 64, 2, 1, 64}, Case{3, 64, 4, 4, 16}})
    expect(c, joint(c, at::kFloat), "T " + std::to_string(c.length));
}

TEST(CausalAttention, GradientsAreRight) {
  for (const Case& c : {Case{2, 3, 2, 2, 4}, Case{1, 5, 4, 2, 2}}) {
    testing::expect_gradients(
        [&](const Tensors& t) {
          return Tensors{causal_attention(t[0], c.heads, c.kv_heads, kScale)};
        },
        {joint(c, at::kDouble)}, "causal_attention");
  }
}

TEST(CausalAttention, SeesNoLaterToken) {
  const Case c{1, 12, 2, 1, 16};
  const at::Tensor qkv = joint(c, at::kFloat);
  const at::Tensor before = causal_attention(qkv, c.heads, c.kv_heads, kScale);
  at::Tensor changed = qkv.clone();
  changed.narrow(1, 7, 5).fill_(100);
  const at::Tensor after = causal_attention(changed, c.heads, c.kv_heads, kScale);
  EXPECT_TRUE(identical(before.narrow(1, 0, 7), after.narrow(1, 0, 7)));
  EXPECT_FALSE(identical(before.narrow(1, 7, 5), after.narrow(1, 7, 5)));
}

TEST(CausalAttention, LargeScoresStayFinite) {
  const Case c{1, 20, 1, 1, 16};
  const at::Tensor qkv = joint(c, at::kFloat).mul(100);
  testing::expect_close(causal_attention(qkv, 1, 1, 1.0),
                        composite::causal_attention({qkv, 1, 1, 1.0}), "large");
}

TEST(CausalAttention, TakesStridedInputs) {
  const Case c{3, 5, 2, 2, 8};
  const at::Tensor qkv = joint({5, 3, 2, 2, 8}, at::kFloat).transpose(0, 1);
  EXPECT_TRUE(identical(causal_attention(qkv, c.heads, c.kv_heads, kScale),
                        causal_attention(qkv.contiguous(), c.heads, c.kv_heads, kScale)));
}

TEST(CausalAttention, RefusesWhatDoesNotFit) {
  const at::Tensor qkv = joint({2, 3, 4, 2, 8}, at::kFloat), grad = normal({2, 3, 32}, at::kFloat);
  EXPECT_THROW(causal_attention(qkv, 4, 3, 1), c10::Error);
  EXPECT_THROW(causal_attention(qkv, 0, 0, 1), c10::Error);
  EXPECT_THROW(causal_attention(qkv, 5, 5, 1), c10::Error);
  EXPECT_THROW(causal_attention(qkv.select(0, 0), 4, 2, 1), c10::Error);
  EXPECT_THROW(causal_attention(qkv.to(at::kLong), 4, 2, 1), c10::Error);
  EXPECT_THROW(causal_attention_backward(grad.narrow(1, 0, 2), qkv, 4, 2, 1), c10::Error);
  EXPECT_THROW(causal_attention_backward(grad.to(at::kDouble), qkv, 4, 2, 1), c10::Error);
}

}  // namespace dense_attention_test
}  // namespace refract
