// Samples for tests/parity/test_every_op.py:
// opcheck: batched_linear(plain(2, 5, 8), plain(2, 3, 8), plain(2, 1, 3), False, True)
#include "ops/many/batched_linear.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include "ops/many/split.h"
#include "support/compare.h"
#include "support/cuda_guard.h"

namespace refract {
namespace many_batched_linear_test {

using testing::name_of;

struct Case {
  int64_t models, rows, in, out;
};
const Case kCases[] = {
    {1, 1, 8, 8}, {3, 70, 24, 40}, {5, 129, 96, 32}, {2, 33, 7, 5}, {4, 200, 64, 200}};

// In float64 from the same operands, rounded once.
void expect_product(at::Device device, const Case& c, at::ScalarType dtype, bool bias, bool gelu) {
  const auto options = at::TensorOptions().device(device);
  const auto draw = [&](at::IntArrayRef sizes) {
    return at::randn(sizes, options.dtype(at::kFloat)).to(dtype);
  };
  const at::Tensor x = draw({c.models, c.rows, c.in}), w = draw({c.models, c.out, c.in});
  std::optional<at::Tensor> b;
  if (bias) b = draw({c.models, 1, c.out});
  at::Tensor exact = at::bmm(x.to(at::kDouble), w.to(at::kDouble).transpose(1, 2));
  if (b) exact = exact.add(b->to(at::kDouble));
  if (gelu) exact = at::gelu(exact, "tanh");
  testing::expect_close(batched_linear(x, w, b, false, gelu), exact.to(dtype),
                        std::to_string(c.out) + " outputs " + name_of(dtype) +
                            (bias ? " bias" : "") + (gelu ? " gelu" : ""));
}

void expect_all(at::Device device) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      for (const bool gelu : {false, true}) {
        expect_product(device, c, dtype, true, gelu);
        expect_product(device, c, dtype, false, gelu);
      }
    }
  }
}

TEST(BatchedLinear, IsTheProductWithBiasAndGelu) { expect_all(at::kCPU); }

TEST(BatchedLinear, IsTheProductWithBiasAndGeluOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_all(at::Device(at::kCUDA, 0));
}

void expect_wide(at::Device device) {
  for (const Case& c : kCases) {
    for (const bool gelu : {false, true}) {
      const auto options = at::TensorOptions().device(device).dtype(at::kFloat);
      const at::Tensor x = split_bfloat16(at::randn({c.models, c.rows, c.in}, options)),
                       w = split_weight_bfloat16(at::randn({c.models, c.out, c.in}, options)),
                       b = at::randn({c.models, 1, c.out}, options);
      const at::Tensor exact = at::bmm(x.to(at::kDouble), w.to(at::kDouble).transpose(1, 2)).add(b);
      testing::expect_close(batched_linear(x, w, b, true, gelu),
                            (gelu ? at::gelu(exact, "tanh") : exact).to(at::kFloat),
                            std::to_string(c.out) + " wide");
    }
  }
}

TEST(BatchedLinear, SplitOperandsGiveFp32) { expect_wide(at::kCPU); }

TEST(BatchedLinear, SplitOperandsGiveFp32OnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_wide(at::Device(at::kCUDA, 0));
}

TEST(BatchedLinear, RefusesWhatDoesNotFit) {
  const at::Tensor x = at::randn({2, 3, 8}, at::kFloat), w = at::randn({2, 5, 8}, at::kFloat);
  EXPECT_THROW(batched_linear(x, w.narrow(0, 0, 1), {}, false, false), c10::Error);
  EXPECT_THROW(batched_linear(x, w, at::randn({2, 1, 4}, at::kFloat), false, false), c10::Error);
  EXPECT_THROW(batched_linear(x, w, {}, true, false), c10::Error);
}

}  // namespace many_batched_linear_test
}  // namespace refract
