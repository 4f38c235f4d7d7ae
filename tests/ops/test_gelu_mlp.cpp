#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>

#include "ops/compare.h"
#include "ops/gradcheck.h"
#include "ops/structured/block_linear.h"
#include "ops/structured/gelu_mlp.h"

namespace refract {
namespace {

using testing::maybe;
using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Shape {
  std::vector<int64_t> leading;
  int64_t in, middle, out, blocks;  // blocks of the second weight; 0: plain
};

// x, weight1, bias1, weight2, grad; small weights, so that GELU is met where it bends.
Tensors inputs(const Shape& s, bool bias, at::ScalarType dtype) {
  auto x = s.leading, y = s.leading;
  x.push_back(s.in);
  y.push_back(s.out);
  const double scale = 1 / std::sqrt(static_cast<double>(s.in));
  const at::Tensor weight2 =
      s.blocks == 0 ? normal({s.out, s.middle}, at::kDouble)
                    : normal({s.blocks, s.out / s.blocks, s.middle / s.blocks}, at::kDouble);
  return {normal(x, dtype), normal({s.middle, s.in}, at::kDouble).mul(scale).to(dtype),
          bias ? normal({s.middle}, dtype) : at::Tensor(), weight2.mul(0.2).to(dtype),
          normal(y, dtype)};
}

// {y, h, gelu(h), grad_h, column sums}.
Tensors run(const Tensors& in) {
  const auto [h, y] = linear_gelu(in[0], in[1], maybe(in[2]));
  const auto [grad_h, sums] = gelu_linear_backward(in[4], in[3], h);
  return {gelu_mlp(in[0], in[1], maybe(in[2]), in[3]), h, y, grad_h, sums};
}

// In float64 and rounded once at the end, from the definition.
Tensors expected(const Tensors& in) {
  const at::ScalarType dtype = in[0].scalar_type();
  Tensors wide;
  for (const auto& t : in) wide.push_back(t.defined() ? t.to(at::kDouble) : t);
  const at::Tensor h = at::linear(wide[0], wide[1], maybe(wide[2])).requires_grad_(true);
  const at::Tensor y = at::gelu(h, "tanh");
  const at::Tensor out = wide[3].dim() == 2 ? at::linear(y, wide[3]) : block_linear(y, wide[3], {});
  const at::Tensor grad_h = torch::autograd::grad({out}, {h}, {wide[4]})[0];
  Tensors all = {out, h, y, grad_h, grad_h.sum_to_size({h.size(-1)})};
  for (auto& t : all) t = t.detach().to(dtype);
  return all;
}

const Shape kShapes[] = {{{1}, 8, 16, 8, 0},       {{3, 5}, 24, 64, 32, 0},  {{70}, 64, 256, 64, 0},
                         {{33}, 16, 64, 32, 2},    {{4, 8}, 32, 128, 64, 4}, {{129}, 5, 7, 3, 0},
                         {{256}, 128, 512, 128, 4}};

void compare(at::DeviceType device) {
  for (const Shape& shape : kShapes) {
    for (const bool bias : {false, true}) {
      for (const auto dtype : testing::kAllTypes) {
        const Tensors in = inputs(shape, bias, dtype);
        const std::string what =
            c10::str(at::IntArrayRef(shape.leading), " ", shape.in, " ", shape.middle, " B ",
                     shape.blocks, bias ? " bias " : " ") +
            name_of(dtype);
        // Rounding of h and of gelu(h) to the type on the way costs a second rounding.
        testing::expect_all_close(run(device == at::kCUDA ? testing::to_cuda(in) : in),
                                  expected(in), what, 4);
      }
    }
  }
}

TEST(GeluMlp, CpuAgreesWithItsDefinition) { compare(at::kCPU); }

TEST(GeluMlp, CudaAgreesWithItsDefinition) {
  REFRACT_CUDA_OR_SKIP();
  compare(at::kCUDA);
}

TEST(GeluMlp, CudaRepeatsBitForBit) {
  REFRACT_CUDA_OR_SKIP();
  const Tensors in = testing::to_cuda(inputs({{2048}, 384, 1536, 384, 0}, true, at::kBFloat16));
  const Tensors once = run(in), again = run(in);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(testing::identical(once[i], again[i])) << i;
}

TEST(GeluMlp, GradientsAreRight) {
  for (const int64_t blocks : {0, 2}) {
    for (const bool bias : {false, true}) {
      Tensors in = inputs({{2, 2}, 3, 4, 6, blocks}, bias, at::kDouble);
      const Tensors leaves =
          bias ? Tensors{in[0], in[1], in[3], in[2]} : Tensors{in[0], in[1], in[3]};
      testing::expect_gradients(
          [&](const Tensors& t) {
            return Tensors{gelu_mlp(t[0], t[1], bias ? maybe(t[3]) : std::nullopt, t[2])};
          },
          leaves, "gelu_mlp");
    }
  }
}

TEST(GeluMlp, RefusesWhatDoesNotFit) {
  const Tensors in = inputs({{2}, 4, 8, 6, 0}, true, at::kFloat);
  EXPECT_THROW(gelu_mlp(in[0], in[1], maybe(in[2]), normal({6, 7}, at::kFloat)), c10::Error);
  EXPECT_THROW(gelu_mlp(in[0], normal({8, 5}, at::kFloat), {}, in[3]), c10::Error);
  EXPECT_THROW(gelu_mlp(in[0], in[1], normal({7}, at::kFloat), in[3]), c10::Error);
  EXPECT_THROW(gelu_linear_backward(in[0], in[3], normal({2, 8}, at::kFloat)), c10::Error);
}

}  // namespace
}  // namespace refract
