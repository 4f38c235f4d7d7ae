// Samples for tests/parity/test_every_op.py:
// opcheck: bias_gelu(normal(4, 8), normal(8), True)
// opcheck: bias_gelu(normal(4, 8), None, False)
// opcheck: bias_gelu_backward(plain(4, 8), plain(4, 8), plain(8), True)
// opcheck: swiglu(normal(4, 8), normal(8))
// opcheck: swiglu_backward(plain(4, 4), plain(4, 8), plain(8))
#include "ops/dense/activation/activation.h"

#include <ATen/Parallel.h>
#include <ATen/ops/gelu.h>

#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_activation_test {

using testing::identical;
using testing::maybe;
using testing::name_of;
using testing::normal;
using testing::Tensors;

enum class Kind { kTanh, kErf, kSwiglu };
constexpr Kind kKinds[] = {Kind::kTanh, Kind::kErf, Kind::kSwiglu};

// {y, grad_x, grad_bias} of one form: in = x, bias (may be undefined), grad.
Tensors run(Kind kind, const Tensors& in) {
  if (kind == Kind::kSwiglu) {
    auto [gx, gb] = swiglu_backward(in[2], in[0], maybe(in[1]));
    return {swiglu(in[0], maybe(in[1])), gx, gb};
  }
  auto [gx, gb] = bias_gelu_backward(in[2], in[0], maybe(in[1]), kind == Kind::kTanh);
  return {bias_gelu(in[0], maybe(in[1]), kind == Kind::kTanh), gx, gb};
}

Tensors run_composite(Kind kind, const Tensors& in) {
  if (kind == Kind::kSwiglu) {
    auto [gx, gb] = composite::swiglu_backward({in[2], in[0], maybe(in[1])});
    return {composite::swiglu({in[0], maybe(in[1])}), gx, gb};
  }
  auto [gx, gb] = composite::bias_gelu_backward({in[2], in[0], maybe(in[1]), kind == Kind::kTanh});
  return {composite::bias_gelu({in[0], maybe(in[1]), kind == Kind::kTanh}), gx, gb};
}

// `leading` dimensions and width F; values spread far into both tails.
Tensors inputs(Kind kind, const std::vector<int64_t>& leading, int64_t width, bool bias,
               at::ScalarType dtype) {
  auto out_shape = leading, in_shape = leading;
  const int64_t wide = kind == Kind::kSwiglu ? 2 * width : width;
  in_shape.push_back(wide);
  out_shape.push_back(width);
  return {normal(in_shape, at::kDouble).mul(3).to(dtype),
          bias ? normal({wide}, dtype) : at::Tensor(), normal(out_shape, dtype)};
}

// Runs f(kind, inputs, description) over shapes, biases and types.
template <class F>
void for_all(F f) {
  const std::vector<std::pair<std::vector<int64_t>, int64_t>> shapes = {
      {{1}, 1},     {{3, 5}, 7}, {{4}, 64}, {{33}, 100}, {{2, 9}, 768},
      {{1000}, 24}, {{70}, 257}, {{0}, 16}, {{2}, 0}};
  for (const auto& [leading, width] : shapes) {
    for (const Kind kind : kKinds) {
      for (const bool bias : {false, true}) {
        for (const auto dtype : testing::kAllTypes) {
          f(kind, inputs(kind, leading, width, bias, dtype),
            "kind " + std::to_string(static_cast<int>(kind)) + " rows " +
                c10::str(at::IntArrayRef(leading)) + " width " + std::to_string(width) +
                (bias ? " bias " : " ") + name_of(dtype));
        }
      }
    }
  }
}

TEST(Activation, CpuAgreesWithComposite) {
  for_all([](Kind kind, const Tensors& in, const std::string& what) {
    testing::expect_all_close(run(kind, in), run_composite(kind, in), what);
  });
}

TEST(Activation, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](Kind kind, const Tensors& in, const std::string& what) {
    testing::expect_all_close(run(kind, testing::to_cuda(in)), run_composite(kind, in), what);
  });
}

TEST(Activation, CudaRepeatsBitForBit) {
  REFRACT_CUDA_OR_SKIP();
  for (const Kind kind : kKinds) {
    const Tensors in = testing::to_cuda(inputs(kind, {4099}, 768, true, at::kBFloat16));
    const Tensors once = run(kind, in), again = run(kind, in);
    for (size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(identical(once[i], again[i])) << i;
  }
}

TEST(Activation, FarTailsAreFinite) {
  const at::Tensor x = normal({64}, at::kFloat).mul(1e4f);
  const at::Tensor grad = normal({64}, at::kFloat);
  for (const Kind kind : {Kind::kTanh, Kind::kErf}) {
    testing::expect_all_close(run(kind, {x, {}, grad}), run_composite(kind, {x, {}, grad}), "tail");
  }
}

TEST(Activation, GradientsAreRight) {
  for (const bool bias : {false, true}) {
    const Tensors gelu = inputs(Kind::kTanh, {2, 3}, 5, true, at::kDouble);
    const Tensors gated = inputs(Kind::kSwiglu, {2, 3}, 4, true, at::kDouble);
    for (const bool tanh_form : {false, true}) {
      testing::expect_gradients(
          [&](const Tensors& t) {
            return Tensors{bias_gelu(t[0], bias ? maybe(t[1]) : std::nullopt, tanh_form)};
          },
          bias ? Tensors{gelu[0], gelu[1]} : Tensors{gelu[0]}, "bias_gelu");
    }
    testing::expect_gradients(
        [&](const Tensors& t) { return Tensors{swiglu(t[0], bias ? maybe(t[1]) : std::nullopt)}; },
        bias ? Tensors{gated[0], gated[1]} : Tensors{gated[0]}, "swiglu");
  }
}

TEST(Activation, BiasGradientsDoNotDependOnThreads) {
  const int threads = at::get_num_threads();
  for (const Kind kind : kKinds) {
    const Tensors in = inputs(kind, {3000}, 65, true, at::kFloat);
    at::set_num_threads(1);
    const Tensors one = run(kind, in);
    at::set_num_threads(2);
    const Tensors two = run(kind, in);
    for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(identical(one[i], two[i])) << i;
  }
  at::set_num_threads(threads);
}

TEST(Activation, TakesStridedInputs) {
  const at::Tensor x = normal({6, 8}, at::kFloat).t();
  EXPECT_TRUE(identical(bias_gelu(x, {}, true), bias_gelu(x.contiguous(), {}, true)));
  EXPECT_TRUE(identical(swiglu(x, {}), swiglu(x.contiguous(), {})));
}

TEST(Activation, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({2, 5}, at::kFloat);
  EXPECT_THROW(bias_gelu(x, normal({4}, at::kFloat), true), c10::Error);
  EXPECT_THROW(bias_gelu(x, normal({5}, at::kDouble), true), c10::Error);
  EXPECT_THROW(bias_gelu(x.to(at::kInt), {}, true), c10::Error);
  EXPECT_THROW(swiglu(x, {}), c10::Error);
  EXPECT_THROW(bias_gelu_backward(normal({2, 4}, at::kFloat), x, {}, true), c10::Error);
}

}  // namespace dense_activation_test
}  // namespace refract
