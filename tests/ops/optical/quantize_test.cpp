// Optical quantization and products: against their composite forms, the definition in float64 and
// the dense layer; ranges; noise.
//
// Samples for tests/parity/test_every_op.py:
// opcheck: optical_quantize(normal(3, 8), unset(), 256, 0.02004, True, None, torch.tensor([3,
//   8]), 1, 2)
// opcheck: optical_quantize(normal(3, 8), torch.tensor([-1.0, 2.0]))
// opcheck: optical_observe_(unset(), plain(3, 8))
// opcheck: optical_observe_(torch.tensor([-1.0, 2.0]), plain(3, 8), 0.9, [0.1, 0.9])
#include "ops/optical/quantize/quantize.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/optical/inputs.h"
#include "ops/optical/matmul/product.h"
#include "ops/optical/quantize/quantization_math.h"
#include "support/compare.h"

namespace refract {
namespace optical_quantize_test {

using testing::clock_of;
using testing::identical;
using testing::name_of;
using testing::normal;
using testing::range_of;
using testing::Tensors;
using testing::unset;

const at::ScalarType kKernelTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

// ---- optical_quantize

OpticalNoise drawn(int64_t step, int64_t first, int64_t seed = 3, int64_t stream = 4) {
  OpticalNoise noise;
  noise.on = true;
  noise.clock = clock_of(step, first);
  noise.seed = seed;
  noise.stream = stream;
  return noise;
}

template <class F>
void for_all_quantizations(F f) {
  for (const int64_t n : {1, 3, 1023, 4097}) {
    for (const auto dtype : kKernelTypes) {
      for (const int64_t levels : {2, 16, 256, 4096}) {
        for (const bool set : {false, true}) {
          for (const bool noise : {false, true}) {
            f(normal({3, n}, dtype), set ? range_of(-1.25f, 2.0f) : unset(), levels,
              noise ? drawn(5, 7) : OpticalNoise{},
              name_of(dtype) + " " + std::to_string(n) + " elements, " + std::to_string(levels) +
                  " levels, " + (set ? "range set" : "range unset") + (noise ? ", noise" : ""));
          }
        }
      }
    }
  }
}

at::Tensor composite_quantize(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                              double lut_min, const OpticalNoise& noise) {
  return composite::optical_quantize({x, range, levels, lut_min, noise});
}

TEST(OpticalQuantize, CpuIsTheCompositeFormBitForBit) {
  for_all_quantizations([](const at::Tensor& x, const at::Tensor& range, int64_t levels,
                           const OpticalNoise& noise, const std::string& what) {
    for (const double lut : {0.0, 0.02004}) {
      EXPECT_TRUE(identical(optical_quantize(x, range, levels, lut, noise),
                            composite_quantize(x, range, levels, lut, noise)))
          << what;
    }
  });
}

TEST(OpticalQuantize, CudaIsTheCpuBitForBit) {
  REFRACT_CUDA_OR_SKIP();
  for_all_quantizations([](const at::Tensor& x, const at::Tensor& range, int64_t levels,
                           OpticalNoise noise, const std::string& what) {
    const at::Tensor expected = optical_quantize(x, range, levels, 0.02004, noise);
    if (noise.clock) noise.clock = noise.clock->to(at::kCUDA);
    const at::Tensor actual =
        optical_quantize(x.to(at::kCUDA), range.to(at::kCUDA), levels, 0.02004, noise);
    EXPECT_TRUE(identical(actual.to(at::kCPU), expected)) << what;
  });
}

TEST(OpticalQuantize, EveryElementIsTheHeadersArithmetic) {
  const at::Tensor x = normal({501}, at::kFloat);
  const at::Tensor y = optical_quantize(x, range_of(-1, 2), 256, 0.02004, drawn(9, 11));
  const auto q = optical::quantizer({-1, 2}, 256, 0.02004f);
  for (int64_t i = 0; i < 501; ++i) {
    const float xi = optical::noise_at(philox_key(3, 4), 9, static_cast<uint64_t>(11 + i));
    const float expected =
        optical::value(q, optical::noisy_level(q, x.const_data_ptr<float>()[i], xi));
    EXPECT_FLOAT_EQ(y.const_data_ptr<float>()[i], expected) << i;
  }
}

TEST(OpticalQuantize, PartsOfABatchDrawWhatTheWholeDraws) {
  const at::Tensor x = normal({12, 5, 7}, at::kFloat), range = range_of(-2, 2);
  const at::Tensor whole = optical_quantize(x, range, 256, 0, drawn(1, 0));
  const at::Tensor part = optical_quantize(x.narrow(0, 3, 6), range, 256, 0, drawn(1, 3));
  EXPECT_TRUE(identical(part, whole.narrow(0, 3, 6)));
}

TEST(OpticalQuantize, WithoutAClockNoiseIsThatOfAnEvaluationsFirstSlice) {
  const at::Tensor x = normal({4, 9}, at::kFloat);
  OpticalNoise none = drawn(0, 0);
  none.clock.reset();
  EXPECT_TRUE(identical(optical_quantize(x, unset(), 256, 0, none),
                        optical_quantize(x, unset(), 256, 0, drawn(-1, 0))));
}

TEST(OpticalQuantize, TheFloorKeepsValuesOutOfTheDark) {
  const at::Tensor x = at::linspace(-1, 1.5, 4001);
  const at::Tensor y = optical_quantize(x, range_of(-1, 1.5f), 256, 0.02004, {});
  EXPECT_EQ(y.gt(0).logical_and(y.lt(0.02004f * 1.5f)).sum().item<int64_t>(), 0);
  EXPECT_EQ(y.lt(0).logical_and(y.gt(-0.02004f)).sum().item<int64_t>(), 0);
  EXPECT_GT(y.eq(0.02004f * 1.5f).sum().item<int64_t>(), 0);
  EXPECT_GT(y.eq(-0.02004f).sum().item<int64_t>(), 0);
}

TEST(OpticalQuantize, TheGradientIsTheIdentitys) {
  const at::Tensor x = normal({5, 6}, at::kFloat).requires_grad_(true),
                   g = normal({5, 6}, at::kFloat);
  optical_quantize(x, range_of(-0.5f, 0.5f), 16, 0.02, drawn(1, 1)).backward(g);
  EXPECT_TRUE(identical(x.grad(), g));
}

TEST(OpticalQuantize, NotFiniteStaysNotFinite) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const at::Tensor x = at::tensor({1.0f, nan, -1.0f});
  EXPECT_EQ(optical_quantize(x, range_of(-1, 1), 256, 0.02, {}).isnan().sum().item<int64_t>(), 1);
}

TEST(OpticalQuantize, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({4}, at::kFloat);
  EXPECT_THROW(optical_quantize(x, range_of(0, 1), 1, 0, {}), c10::Error);
  EXPECT_THROW(optical_quantize(x, range_of(0, 1), 256, 1.0, {}), c10::Error);
  EXPECT_THROW(optical_quantize(x, at::zeros({3}), 256, 0, {}), c10::Error);
  EXPECT_THROW(optical_quantize(x, at::zeros({2}, at::kDouble), 256, 0, {}), c10::Error);
  EXPECT_THROW(optical_quantize(x.to(at::kLong), range_of(0, 1), 256, 0, {}), c10::Error);
  EXPECT_THROW(optical_observe_(range_of(0, 1), x, 1.5, {}), c10::Error);
  const double falling[] = {0.9, 0.1};
  EXPECT_THROW(optical_observe_(range_of(0, 1), x, 0.9, falling), c10::Error);
}

// ---- Ranges

TEST(OpticalRange, TheFirstCallSetsItAndLaterOnesMoveIt) {
  for (const auto dtype : testing::kAllTypes) {
    at::Tensor range = unset();
    optical_observe_(range, at::tensor({-1.0, 0.5, 3.0}).to(dtype), 0.9, {});
    EXPECT_TRUE(identical(range, range_of(-1, 3)));
    optical_observe_(range, at::tensor({-2.0, 0.5, 1.0}).to(dtype), 0.75, {});
    EXPECT_TRUE(identical(range, range_of(-1.25f, 2.5f)));
  }
}

TEST(OpticalRange, WhatIsNotFiniteMovesNothing) {
  at::Tensor range = range_of(-1, 1);
  optical_observe_(range, at::tensor({1.0f, std::numeric_limits<float>::infinity()}), 0.9, {});
  EXPECT_TRUE(identical(range, range_of(-1, 1)));
}

TEST(OpticalRange, QuantilesAreInterpolated) {
  at::Tensor range = unset();
  const double ends[] = {0.25, 0.9};
  optical_observe_(range, at::tensor({4.0f, 0.0f, 1.0f, 3.0f, 2.0f}), 0.9, ends);
  EXPECT_FLOAT_EQ(range[0].item<float>(), 1.0f);
  EXPECT_FLOAT_EQ(range[1].item<float>(), 3.6f);
}

TEST(OpticalRange, CudaMovesAsTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  for (const auto dtype : kKernelTypes) {
    at::Tensor cpu = unset(), cuda = unset().to(at::kCUDA);
    for (int step = 0; step < 3; ++step) {
      const at::Tensor x = normal({1 + 3333 * step}, dtype);
      optical_observe_(cpu, x, 0.9, {});
      optical_observe_(cuda, x.to(at::kCUDA), 0.9, {});
      EXPECT_TRUE(identical(cuda.to(at::kCPU), cpu)) << name_of(dtype) << " step " << step;
    }
  }
}

// ---- Operands: the levels are exact

TEST(OpticalCodes, LevelsAreExactAndTheFloorIsWithinATenthOfALevel) {
  const optical::Range ranges[] = {{-1, 1},           {-0.3f, 0.9f}, {0, 6.5f},      {0.5f, 1},
                                   {-7.25f, -0.125f}, {-0.17f, 12},  {1e-3f, 2e-3f}, {-3, 1e-4f}};
  for (const int levels : {2, 3, 16, 255, 256, 257, 1024, 2048}) {
    for (const auto& range : ranges) {
      const auto q = optical::quantizer(range, levels, 0.02004f);
      const auto c = optical::coder(q);
      for (int n = 0; n < levels; ++n) {
        const float level = static_cast<float>(n);
        const float code = optical::code(q, c, level);
        EXPECT_LE(std::abs(code), 1.0f);
        EXPECT_EQ(static_cast<float>(at::Half(code)), code) << "fp16 does not hold " << code;
        const double carried = c.residual + static_cast<double>(q.step) * code / c.unit;
        const double error = std::abs(carried - optical::value(q, level)) / q.step;
        const bool between = optical::value(q, level) != optical::plain_value(q, level);
        // Off the floor nothing is rounded but the value itself, in fp32.
        EXPECT_LT(error, between ? 0.1 * levels / 256 : 1e-3 * levels / 256 + 1e-4)
            << "level " << n << " of " << levels << " in [" << range.lo << ", " << range.hi << "]";
      }
    }
  }
}

// ---- Noise

TEST(OpticalNoiseTest, IsUniform) {
  const int64_t n = 1 << 20;
  const at::Tensor xi =
      composite::optical_xi({n}, at::kCPU, true, std::nullopt, clock_of(3, 0), 1, 2);
  const at::Tensor wide = xi.to(at::kDouble);
  EXPECT_GE(xi.min().item<float>(), -0.5f);
  EXPECT_LT(xi.max().item<float>(), 0.5f);
  // Five deviations of the mean, of the variance, and of each of 64 equally likely counts.
  EXPECT_NEAR(wide.mean().item<double>(), 0, 5 * std::sqrt(1.0 / 12 / n));
  EXPECT_NEAR(wide.square().mean().item<double>(), 1.0 / 12, 5 * std::sqrt(1.0 / 180 / n));
  const at::Tensor counts = wide.add(0.5).mul(64).floor().to(at::kLong).bincount({}, 64);
  const double expected = n / 64.0;
  EXPECT_LT(counts.to(at::kDouble).sub(expected).abs().max().item<double>(),
            5 * std::sqrt(expected));
}

double correlation(const at::Tensor& a, const at::Tensor& b) {
  return a.to(at::kDouble).mul(b).mean().item<double>() * 12;
}

TEST(OpticalNoiseTest, IsIndependentAcrossElementsLayersAndSteps) {
  const int64_t n = 1 << 18;
  auto xi = [&](int64_t step, int64_t seed, int64_t stream) {
    return composite::optical_xi({n}, at::kCPU, true, std::nullopt, clock_of(step, 0), seed, stream)
        .to(at::kDouble);
  };
  const at::Tensor base = xi(5, 1, 77);
  const double allowed = 5 / std::sqrt(static_cast<double>(n));
  for (const int64_t lag : {1, 2, 3, 4, 5, 64, 1024}) {
    EXPECT_LT(std::abs(correlation(base.narrow(0, 0, n - lag), base.narrow(0, lag, n - lag))),
              allowed)
        << "elements " << lag << " apart";
  }
  EXPECT_LT(std::abs(correlation(base, xi(6, 1, 77))), allowed) << "next step";
  EXPECT_LT(std::abs(correlation(base, xi(5, 1, 78))), allowed) << "another layer";
  EXPECT_LT(std::abs(correlation(base, xi(5, 2, 77))), allowed) << "another seed";
}

TEST(OpticalNoiseTest, RoundingWithItIsUnbiased) {
  // E[rint(u + xi)] = u: the mean over many draws is the value itself, not its nearest level.
  const at::Tensor x = at::zeros({1 << 18}).fill_(0.3f);
  const at::Tensor y = optical_quantize(x, range_of(-1, 1), 8, 0, drawn(0, 0));
  const double step = 2.0 / 7;
  EXPECT_NEAR(y.to(at::kDouble).mean().item<double>(), 0.3, 5 * step * 0.5 / 512);
  EXPECT_EQ(y.eq(y[0]).all().item<bool>(), false);
}

TEST(OpticalNoiseTest, MaseTritonsSharedNumberIsKnown) {
  // Philox 4x32-10 of a zero key and counter is 0x6627e8d5 (the generator's published test vector).
  EXPECT_NEAR(optical::mase_shared_noise(0), 0x6627e8d5 * 4.6566127342e-10 - 0.5, 1e-7);
  EXPECT_NEAR(optical::mase_shared_noise(0), 0.2981, 1e-4);
}

}  // namespace optical_quantize_test
}  // namespace refract
