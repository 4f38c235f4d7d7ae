// Samples for tests/parity/test_every_op.py:
// opcheck: rope(normal(2, 5, 24), torch.rand(9, 4), torch.rand(9, 4), 2, 2, 8)
#include "ops/dense/attention/rope.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>

#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_rope_test {

using testing::identical;
using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Case {
  int64_t batch, length, heads, rotated, head_dim, offset;
};
const Case kCases[] = {{1, 1, 1, 1, 2, 0},      {2, 5, 6, 4, 64, 3}, {2, 7, 3, 2, 6, 0},
                       {1, 33, 9, 6, 128, 1},   {3, 4, 2, 0, 16, 0}, {0, 4, 2, 1, 16, 0},
                       {2, 300, 12, 12, 80, 20}};

// cos and sin [length + offset + 2, head_dim / 2].
std::pair<at::Tensor, at::Tensor> tables(const Case& c, at::ScalarType dtype) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor speed = at::pow(
      10000.0, at::arange(c.head_dim / 2, options).mul(-2.0 / static_cast<double>(c.head_dim)));
  const at::Tensor angle = at::outer(at::arange(c.length + c.offset + 2, options), speed);
  const auto wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  return {angle.cos().to(wide), angle.sin().to(wide)};
}

template <class F>
void for_all(F f) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      for (const bool inverse : {false, true}) {
        const at::Tensor x = normal({c.batch, c.length, c.heads * c.head_dim}, dtype);
        f(c, x, inverse, "rope head_dim " + std::to_string(c.head_dim) + " " + name_of(dtype));
      }
    }
  }
}

TEST(Rope, CpuAgreesWithComposite) {
  for_all([](const Case& c, const at::Tensor& x, bool inverse, const std::string& what) {
    const auto [cos, sin] = tables(c, x.scalar_type());
    testing::expect_close(rope(x, cos, sin, c.offset, c.rotated, c.head_dim, inverse),
                          composite::rope({x, cos, sin, c.offset, c.rotated, c.head_dim, inverse}),
                          what);
  });
}

TEST(Rope, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](const Case& c, const at::Tensor& x, bool inverse, const std::string& what) {
    const auto [cos, sin] = tables(c, x.scalar_type());
    testing::expect_close(rope(x.to(at::kCUDA), cos.to(at::kCUDA), sin.to(at::kCUDA), c.offset,
                               c.rotated, c.head_dim, inverse),
                          composite::rope({x, cos, sin, c.offset, c.rotated, c.head_dim, inverse}),
                          what);
  });
}

TEST(Rope, PairsTurnByPositionTimesFrequency) {
  const Case c{1, 3, 2, 1, 4, 5};
  const auto [cos, sin] = tables(c, at::kFloat);
  const at::Tensor x = normal({1, 3, 8}, at::kFloat);
  const at::Tensor y = rope(x, cos, sin, 5, 1, 4);
  for (int64_t t = 0; t < 3; ++t) {
    const float* in = x.data_ptr<float>() + t * 8;
    const float* out = y.data_ptr<float>() + t * 8;
    for (int i = 0; i < 2; ++i) {
      const double angle = static_cast<double>(t + 5) * (i == 0 ? 1.0 : 0.01);
      EXPECT_NEAR(out[i], in[i] * std::cos(angle) - in[i + 2] * std::sin(angle), 1e-6);
      EXPECT_NEAR(out[i + 2], in[i + 2] * std::cos(angle) + in[i] * std::sin(angle), 1e-6);
    }
    for (int i = 4; i < 8; ++i) EXPECT_EQ(out[i], in[i]);
  }
}

TEST(Rope, InverseTurnsBack) {
  const Case c{2, 9, 4, 3, 32, 2};
  const auto [cos, sin] = tables(c, at::kDouble);
  const at::Tensor x = normal({2, 9, 128}, at::kDouble);
  testing::expect_close(rope(rope(x, cos, sin, 2, 3, 32), cos, sin, 2, 3, 32, true), x, "back");
}

TEST(Rope, GradientsAreRight) {
  const Case c{2, 3, 3, 2, 4, 1};
  const auto [cos, sin] = tables(c, at::kDouble);
  for (const bool inverse : {false, true}) {
    testing::expect_gradients(
        [&](const Tensors& t) { return Tensors{rope(t[0], cos, sin, 1, 2, 4, inverse)}; },
        {normal({2, 3, 12}, at::kDouble)}, "rope");
  }
}

TEST(Rope, TakesStridedInputs) {
  const Case c{2, 3, 2, 2, 4, 0};
  const auto [cos, sin] = tables(c, at::kFloat);
  const at::Tensor x = normal({3, 2, 8}, at::kFloat).transpose(0, 1);
  EXPECT_TRUE(identical(rope(x, cos, sin, 0, 2, 4), rope(x.contiguous(), cos, sin, 0, 2, 4)));
}

TEST(Rope, RefusesWhatDoesNotFit) {
  const Case c{1, 4, 2, 2, 8, 0};
  const auto [cos, sin] = tables(c, at::kFloat);  // 6 positions
  const at::Tensor x = normal({1, 4, 16}, at::kFloat);
  EXPECT_THROW(rope(x, cos, sin, 3, 2, 8), c10::Error);
  EXPECT_THROW(rope(x, cos, sin, -1, 2, 8), c10::Error);
  EXPECT_THROW(rope(x, cos, sin, 0, 3, 8), c10::Error);
  EXPECT_THROW(rope(x, cos, sin, 0, 2, 6), c10::Error);
  EXPECT_THROW(rope(x, cos, sin, 0, 2, 7), c10::Error);
  EXPECT_THROW(rope(x, cos.to(at::kDouble), sin, 0, 2, 8), c10::Error);
}

}  // namespace dense_rope_test
}  // namespace refract
