// Samples for tests/parity/test_every_op.py:
// opcheck: bit_flip(normal(4, 8), 3, 2, 30.0, 1, 2, torch.tensor([3, 8]))
// opcheck: bit_flip_backward(plain(4, 8), plain(4, 8), 3, 2, 30.0, 1, 2, torch.tensor([3, 8]))
// opcheck: bit_flip(normal(4, 8), 9, 8, 30.0, 1, 2, torch.tensor([3, 8]))
#include "ops/numeric/bit_flip.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "support/compare.h"

namespace refract {
namespace numeric_bit_flip_test {

using testing::identical;
using testing::name_of;
using testing::normal;

at::Tensor clock_of(int64_t step, int64_t first) {
  return at::tensor({step, first}, at::TensorOptions().dtype(at::kLong));
}

// The bits of x that differ from y's, as int64.
at::Tensor difference(const at::Tensor& x, const at::Tensor& y) {
  const auto whole = x.element_size() == 4 ? at::kInt : at::kShort;
  const at::Tensor bits = x.view(whole).bitwise_xor(y.view(whole)).to(at::kLong);
  return x.element_size() == 4 ? bits.bitwise_and(0xffffffff) : bits.bitwise_and(0xffff);
}

// f(x, gradient, flips of the exponent, of the fraction, zero_out, what)
template <class F>
void for_all(F f) {
  for (const auto dtype : testing::kAllTypes) {
    for (const int64_t n : {0, 1, 7, 257, 4096}) {
      for (const auto& [exponent, fraction] :
           {std::pair{2, 1}, {0, 3}, {5, 0}, {17, 24}, {0, 0}, {8, 8}, {0, 9}}) {
        for (const std::optional<double> t : {std::optional<double>(), std::optional(1.5)}) {
          f(normal({n}, dtype), normal({n}, dtype), exponent, fraction, t,
            name_of(dtype) + " " + std::to_string(n) + " " + std::to_string(exponent));
        }
      }
    }
  }
}

TEST(BitFlip, CpuIsTheComposite) {
  for_all([](const at::Tensor& x, const at::Tensor& g, int64_t e, int64_t f,
             std::optional<double> t, const std::string& what) {
    const at::Tensor clock = clock_of(3, 11);
    EXPECT_TRUE(identical(bit_flip(x, e, f, t, 9, -2, clock),
                          composite::bit_flip({x, e, f, t, 9, -2, clock})))
        << what;
    EXPECT_TRUE(identical(bit_flip_backward(g, x, e, f, t, 9, -2, clock),
                          composite::bit_flip_backward({g, x, e, f, t, 9, -2, clock})))
        << what;
  });
}

TEST(BitFlip, CudaIsTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](const at::Tensor& x, const at::Tensor& g, int64_t e, int64_t f,
             std::optional<double> t, const std::string& what) {
    const at::Tensor clock = clock_of(3, 11), there = clock.to(at::kCUDA), xc = x.to(at::kCUDA);
    EXPECT_TRUE(identical(bit_flip(xc, e, f, t, 9, -2, there).to(at::kCPU),
                          bit_flip(x, e, f, t, 9, -2, clock)))
        << what;
    EXPECT_TRUE(
        identical(bit_flip_backward(g.to(at::kCUDA), xc, e, f, t, 9, -2, there).to(at::kCPU),
                  bit_flip_backward(g, x, e, f, t, 9, -2, clock)))
        << what;
  });
}

// Each position by itself: five deviations of a binomial.
TEST(BitFlip, EveryBitFlipsAtItsRateAndIndependently) {
  const int64_t n = 1 << 18;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const int bits = dtype == at::kFloat ? 32 : 16;
    const int fraction_bits = dtype == at::kFloat ? 23 : dtype == at::kBFloat16 ? 7 : 10;
    const at::Tensor x = at::full({n}, 1.5, dtype);
    const at::Tensor flips = difference(x, bit_flip(x, 3, 5, std::nullopt, 1, 2, clock_of(0, 0)));
    for (int bit = 0; bit < bits; ++bit) {
      const double p = bit < fraction_bits ? 1.0 / 32 : 1.0 / 8;
      const double rate =
          flips.bitwise_right_shift(bit).bitwise_and(1).to(at::kDouble).mean().item<double>();
      EXPECT_NEAR(rate, p, 5 * std::sqrt(p * (1 - p) / static_cast<double>(n)))
          << name_of(dtype) << " bit " << bit;
    }
    // Two neighbours of the fraction, and two of different parts.
    for (const auto& [a, b, p] :
         {std::tuple{0, 1, 1.0 / 1024}, {fraction_bits - 1, fraction_bits, 1.0 / 256}}) {
      const at::Tensor both =
          flips.bitwise_right_shift(a).bitwise_and(flips.bitwise_right_shift(b)).bitwise_and(1);
      EXPECT_NEAR(both.to(at::kDouble).mean().item<double>(), p,
                  5 * std::sqrt(p / static_cast<double>(n)));
    }
  }
}

// Drawn as darts at groups of 128 bits: the same rates, five deviations of a binomial, the rare
// ones over all bits of a part together.
TEST(BitFlip, RareFlipsHaveTheirRatesToo) {
  const int64_t n = 1 << 19;
  for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    const int bits = dtype == at::kFloat ? 32 : 16;
    const int fraction_bits = dtype == at::kFloat ? 23 : dtype == at::kBFloat16 ? 7 : 10;
    const at::Tensor x = at::full({n}, 1.5, dtype);
    for (const auto& [exponent, fraction] : {std::pair{8, 8}, {8, 10}, {12, 9}, {0, 8}}) {
      const at::Tensor flips =
          difference(x, bit_flip(x, exponent, fraction, std::nullopt, 1, 2, clock_of(0, 3)));
      for (int bit = 0; bit < bits; ++bit) {
        const int of_bit = bit < fraction_bits ? fraction : exponent;
        const double p = of_bit == 0 ? 0 : std::ldexp(1, -of_bit);
        const double rate =
            flips.bitwise_right_shift(bit).bitwise_and(1).to(at::kDouble).mean().item<double>();
        EXPECT_NEAR(rate, p, 5 * std::sqrt(p * (1 - p) / static_cast<double>(n)))
            << name_of(dtype) << " bit " << bit << " of " << exponent << ", " << fraction;
      }
    }
    for (const int rare : {12, 16}) {
      const at::Tensor flips =
          difference(x, bit_flip(x, rare, rare, std::nullopt, 1, 2, clock_of(0, 0)));
      double sum = 0;
      for (int bit = 0; bit < bits; ++bit)
        sum += flips.bitwise_right_shift(bit).bitwise_and(1).sum().item<double>();
      const double mean = std::ldexp(static_cast<double>(n * bits), -rare);
      EXPECT_NEAR(sum, mean, 5 * std::sqrt(mean)) << name_of(dtype) << " " << rare;
    }
  }
}

// Bits of one element, and the same bit of elements up to 8 apart, which share a group: how often
// both flip, over all such pairs, within five deviations of a Poisson number.
TEST(BitFlip, RareFlipsAreIndependentWithinAGroup) {
  const int64_t n = 1 << 19;
  const double p = 1.0 / 256;
  const at::Tensor x = at::full({n}, 1.5, at::kBFloat16);
  const at::Tensor flips = difference(x, bit_flip(x, 8, 8, std::nullopt, 4, 5, clock_of(1, 0)));
  const auto ones = [](const at::Tensor& t) {
    double sum = 0;
    for (int bit = 0; bit < 16; ++bit)
      sum += t.bitwise_right_shift(bit).bitwise_and(1).sum().item<double>();
    return sum;
  };
  for (int apart = 1; apart < 16; ++apart) {
    const double pairs = static_cast<double>(n) * (16 - apart);
    EXPECT_NEAR(ones(flips.bitwise_and(flips.bitwise_right_shift(apart))), pairs * p * p,
                5 * std::sqrt(pairs) * p)
        << apart << " bits apart";
  }
  for (int64_t apart = 1; apart < 9; ++apart) {
    const double pairs = static_cast<double>(n - apart) * 16;
    EXPECT_NEAR(ones(flips.narrow(0, 0, n - apart).bitwise_and(flips.narrow(0, apart, n - apart))),
                pairs * p * p, 5 * std::sqrt(pairs) * p)
        << apart << " elements apart";
  }
  // The number of flips in a group of 8 elements has a binomial's mean and variance.
  at::Tensor count = at::zeros({n / 8}, at::kDouble);
  for (int bit = 0; bit < 16; ++bit)
    count += flips.bitwise_right_shift(bit).bitwise_and(1).view({-1, 8}).sum(1);
  const auto groups = static_cast<double>(n) / 8;
  const double variance = 128 * p * (1 - p);
  EXPECT_NEAR(count.var().item<double>(), variance,
              5 * std::sqrt((variance + 2 * variance * variance) / groups));
}

TEST(BitFlip, AnyCutOfTheBatchDrawsTheSameRareFlips) {
  const at::Tensor x = at::ones({4000});
  const at::Tensor half = at::ones({4000}, at::kBFloat16);
  const auto of = [](const at::Tensor& t, int64_t begin, int64_t length) {
    return bit_flip(t.narrow(0, begin, length), 8, 9, std::nullopt, 1, 2, clock_of(3, begin));
  };
  for (const at::Tensor& t : {x, half}) {
    const at::Tensor all = of(t, 0, 4000);
    EXPECT_FALSE(identical(all, t));
    for (const int64_t begin : {0, 1, 2, 3, 5, 7, 8, 1023, 1024, 1111})
      EXPECT_TRUE(identical(all.narrow(0, begin, 2000), of(t, begin, 2000))) << begin;
  }
}

TEST(BitFlip, StreamsSeedsAndStepsDrawOtherBits) {
  const at::Tensor x = at::ones({4000});
  const auto flips = [&](int64_t seed, int64_t stream, int64_t step, int64_t first) {
    return bit_flip(x, 4, 4, std::nullopt, seed, stream, clock_of(step, first));
  };
  const at::Tensor one = flips(1, 2, 3, 0);
  EXPECT_TRUE(identical(one, flips(1, 2, 3, 0)));
  EXPECT_FALSE(identical(one, flips(2, 2, 3, 0)));
  EXPECT_FALSE(identical(one, flips(1, 3, 3, 0)));
  EXPECT_FALSE(identical(one, flips(1, 2, 4, 0)));
  const auto rare = [&](int64_t seed, int64_t stream, int64_t step) {
    return bit_flip(x, 9, 9, std::nullopt, seed, stream, clock_of(step, 0));
  };
  EXPECT_FALSE(identical(rare(1, 2, 3), x));
  EXPECT_FALSE(identical(rare(1, 2, 3), rare(2, 2, 3)));
  EXPECT_FALSE(identical(rare(1, 2, 3), rare(1, 3, 3)));
  EXPECT_FALSE(identical(rare(1, 2, 3), rare(1, 2, 4)));
  // A part of the batch draws what the whole draws.
  EXPECT_TRUE(identical(one.narrow(0, 1000, 500), bit_flip(x.narrow(0, 1000, 500), 4, 4,
                                                           std::nullopt, 1, 2, clock_of(3, 1000))));
}

TEST(BitFlip, WhatLeavesTheLimitIsZeroAndHasNoGradient) {
  const at::Tensor x = at::tensor({1.0f, -1.2f, 1.25f, 7.0f, NAN, INFINITY}).requires_grad_(true);
  const at::Tensor y = bit_flip(x, 0, 0, 1.25, 1, 2, clock_of(0, 0));
  EXPECT_TRUE(y.equal(at::tensor({1.0f, -1.2f, 0.0f, 0.0f, 0.0f, 0.0f})));
  y.backward(at::full({6}, 2.0f));
  EXPECT_TRUE(x.grad().equal(at::tensor({2.0f, 2.0f, 0.0f, 0.0f, 0.0f, 0.0f})));
}

TEST(BitFlip, TheGradientUsesTheSameBits) {
  const at::Tensor x = normal({5000}, at::kFloat).requires_grad_(true);
  const at::Tensor y = bit_flip(x, 2, 2, 2.0, 5, 6, clock_of(7, 0));
  y.backward(at::ones_like(y));
  // An element that became 0 by itself has a gradient; none of these does.
  EXPECT_TRUE(x.grad().ne(0).equal(y.ne(0)));
  EXPECT_GT(y.eq(0).sum().item<int64_t>(), 100);
}

TEST(BitFlip, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({4}, at::kFloat);
  EXPECT_THROW(bit_flip(x, 25, 0, std::nullopt, 0, 0, clock_of(0, 0)), c10::Error);
  EXPECT_THROW(bit_flip(x, 1, 0, -1.0, 0, 0, clock_of(0, 0)), c10::Error);
  EXPECT_THROW(bit_flip(x, 1, 0, std::nullopt, 0, 0, at::ones({2})), c10::Error);
}

}  // namespace numeric_bit_flip_test
}  // namespace refract
