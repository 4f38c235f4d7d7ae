// Samples for tests/parity/test_every_op.py:
// opcheck: linear_gelu(normal(2, 3, 8), normal(6, 8), normal(6))
// opcheck: linear_gelu(normal(3, 8), normal(6, 8), None)
// opcheck: linear_gelu_forward(plain(3, 8), plain(6, 8), plain(6))
#include "ops/dense/linear/linear_gelu.h"

#include <ATen/ops/gelu.h>
#include <ATen/ops/linear.h>

#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_linear_gelu_test {

using testing::maybe;
using testing::name_of;
using testing::normal;
using testing::Tensors;

// x, weight, bias, grad; weights so that GELU is met where it bends.
Tensors inputs(const std::vector<int64_t>& leading, int64_t in, int64_t out, bool bias,
               at::ScalarType dtype) {
  auto x = leading, y = leading;
  x.push_back(in);
  y.push_back(out);
  const double scale = 1 / std::sqrt(static_cast<double>(in));
  return {normal(x, dtype), normal({out, in}, at::kDouble).mul(scale).to(dtype),
          bias ? normal({out}, dtype) : at::Tensor(), normal(y, dtype)};
}

// {y, h, y again, gradients of x, weight and, where there is one, bias}.
Tensors run(const Tensors& in) {
  const auto [h, y] = linear_gelu_forward(in[0], in[1], maybe(in[2]));
  Tensors leaves;
  for (size_t i = 0; i < 3; ++i) {
    if (in[i].defined()) leaves.push_back(in[i].detach().requires_grad_(true));
  }
  const at::Tensor out =
      linear_gelu(leaves[0], leaves[1], leaves.size() > 2 ? maybe(leaves[2]) : std::nullopt);
  Tensors all = {out.detach(), h, y};
  for (const at::Tensor& grad : torch::autograd::grad({out}, leaves, {in[3]})) all.push_back(grad);
  return all;
}

// In float64 and rounded once at the end, from the definition.
Tensors expected(const Tensors& in) {
  Tensors leaves;
  for (size_t i = 0; i < 3; ++i) {
    if (in[i].defined()) leaves.push_back(in[i].to(at::kDouble).detach().requires_grad_(true));
  }
  const at::Tensor h =
      at::linear(leaves[0], leaves[1], leaves.size() > 2 ? maybe(leaves[2]) : std::nullopt);
  const at::Tensor y = at::gelu(h, "tanh");
  Tensors all = {y, h, y};
  for (const at::Tensor& g : torch::autograd::grad({y}, leaves, {in[3].to(at::kDouble)})) {
    all.push_back(g);
  }
  for (auto& t : all) t = t.detach().to(in[0].scalar_type());
  return all;
}

void compare(at::DeviceType device) {
  for (const auto& [leading, in, out] :
       std::vector<std::tuple<std::vector<int64_t>, int64_t, int64_t>>{
           {{1}, 8, 16}, {{3, 5}, 24, 64}, {{70}, 64, 256}, {{129}, 5, 7}, {{256}, 128, 512}}) {
    for (const bool bias : {false, true}) {
      for (const auto dtype : testing::kAllTypes) {
        const Tensors t = inputs(leading, in, out, bias, dtype);
        const std::string what =
            c10::str(at::IntArrayRef(leading), " ", in, " ", out, bias ? " bias " : " ") +
            name_of(dtype);
        // h is rounded to the type before its slope is taken, and grad_h before it is multiplied.
        testing::expect_all_close(run(device == at::kCUDA ? testing::to_cuda(t) : t), expected(t),
                                  what, 4);
      }
    }
  }
}

TEST(LinearGelu, CpuAgreesWithItsDefinition) { compare(at::kCPU); }

TEST(LinearGelu, CudaAgreesWithItsDefinition) {
  REFRACT_CUDA_OR_SKIP();
  compare(at::kCUDA);
}

TEST(LinearGelu, CudaRepeatsBitForBit) {
  REFRACT_CUDA_OR_SKIP();
  const Tensors in = testing::to_cuda(inputs({2048}, 384, 1536, true, at::kBFloat16));
  const Tensors once = run(in), again = run(in);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(testing::identical(once[i], again[i])) << i;
}

TEST(LinearGelu, GradientsAreRight) {
  for (const bool bias : {false, true}) {
    const Tensors in = inputs({2, 2}, 3, 4, bias, at::kDouble);
    testing::expect_gradients(
        [&](const Tensors& t) {
          return Tensors{linear_gelu(t[0], t[1], bias ? maybe(t[2]) : std::nullopt)};
        },
        bias ? Tensors{in[0], in[1], in[2]} : Tensors{in[0], in[1]}, "linear_gelu");
  }
}

TEST(LinearGelu, RefusesWhatDoesNotFit) {
  const Tensors in = inputs({2}, 4, 8, true, at::kFloat);
  EXPECT_THROW(linear_gelu(in[0], normal({8, 5}, at::kFloat), {}), c10::Error);
  EXPECT_THROW(linear_gelu(in[0], in[1], normal({7}, at::kFloat)), c10::Error);
  EXPECT_THROW(linear_gelu(in[0], in[1].to(at::kDouble), {}), c10::Error);
}

}  // namespace dense_linear_gelu_test
}  // namespace refract
