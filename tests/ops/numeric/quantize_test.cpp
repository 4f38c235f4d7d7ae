// Samples for tests/parity/test_every_op.py:
// opcheck: number_quantize(plain(4, 64), False, 4, 3, 448.0, 0, 1, 32)
// opcheck: number_quantize(plain(2, 64, 6), True, 0, 6, 1.984375, 3, 3, 16, 5, 6,
//   torch.tensor([3, 8]))
#include "ops/numeric/quantize.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_unique2.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "support/compare.h"

namespace refract {
namespace numeric_quantize_test {

using testing::identical;
using testing::name_of;
using testing::normal;

struct Named {
  const char* name;
  NumberFormat format;
};
const Named kElements[] = {{"e4m3", {4, 3, 448}},   {"e5m2", {5, 2, 57344}},
                           {"e2m3", {2, 3, 7.5}},   {"e3m2", {3, 2, 28}},
                           {"e2m1", {2, 1, 6}},     {"int8", {0, 6, 127.0 / 64}},
                           {"e5m1", {5, 1, 98304}}, {"e1m6", {1, 6, 3.96875}}};

at::Tensor clock_of(int64_t step, int64_t first) {
  return at::tensor({step, first}, at::TensorOptions().dtype(at::kLong));
}

// Every magnitude of a format in rising order: their places are their codes, so that an even code
// has an even last mantissa bit.
std::vector<double> magnitudes(const NumberFormat& f) {
  const int64_t per_exponent = int64_t{1} << f.mantissa_bits;
  const int64_t least = f.exponent_bits == 0 ? 0 : 2 - (int64_t{1} << (f.exponent_bits - 1));
  std::vector<double> all;
  for (int64_t code = 0; all.empty() || all.back() < f.max; ++code) {
    const int64_t exponent = code / per_exponent, fraction = code % per_exponent;
    const double step = std::ldexp(1.0, static_cast<int>(least - f.mantissa_bits));
    all.push_back(exponent == 0 ? static_cast<double>(fraction) * step
                                : std::ldexp(static_cast<double>(per_exponent + fraction) * step,
                                             static_cast<int>(exponent - 1)));
  }
  return all;
}

// The definition, by search.
double rounded(double x, const std::vector<double>& all, int64_t rounding) {
  if (std::isnan(x)) return x;
  const double a = std::min(std::abs(x), all.back());
  const auto above = std::lower_bound(all.begin(), all.end(), a);
  double y = *above;
  if (*above != a) {
    const double below = *(above - 1), middle = (below + *above) / 2;
    const bool even_below = (above - 1 - all.begin()) % 2 == 0;
    const bool up = rounding == 2 ? false : a != middle ? a > middle : rounding == 1 || !even_below;
    y = up ? *above : below;
  }
  return std::copysign(y, x);
}

// All 65,536 numbers of a 16-bit type.
at::Tensor every_number(at::ScalarType dtype) {
  return at::arange(65536, at::kInt).to(at::kShort).view(dtype).clone();
}

TEST(NumberQuantize, EveryNumberOfSixteenBitsIsRoundedAsDefined) {
  for (const Named& named : kElements) {
    const std::vector<double> all = magnitudes(named.format);
    EXPECT_EQ(all.back(), named.format.max) << named.name;
    for (const auto dtype : {at::kBFloat16, at::kHalf}) {
      const at::Tensor x = every_number(dtype), wide = x.to(at::kDouble);
      for (const int64_t rounding : {0, 1, 2}) {
        NumberFormat f = named.format;
        f.rounding = rounding;
        at::Tensor expected = at::empty_like(wide);
        for (int64_t i = 0; i < wide.numel(); ++i) {
          expected.data_ptr<double>()[i] = rounded(wide.data_ptr<double>()[i], all, rounding);
        }
        const at::Tensor actual = number_quantize(x, false, f).to(at::kDouble);
        const at::Tensor same = actual.eq(expected.to(dtype).to(at::kDouble))
                                    .logical_or(wide.isnan().logical_and(actual.isnan()));
        EXPECT_TRUE(same.all().item<bool>())
            << named.name << " " << name_of(dtype) << " " << rounding;
      }
    }
  }
}

template <class F>
void for_all(F f) {
  for (const Named& named : {kElements[0], kElements[4], kElements[5]}) {
    for (const int64_t scaling : {0, 1, 2, 3, 4}) {
      if (scaling > 2 && named.format.exponent_bits > 0) continue;
      for (const int64_t block : {-1, 0, 16, 5}) {
        for (const int64_t rounding : {0, 1, 2, 3}) {
          NumberFormat format = named.format;
          format.scaling = scaling;
          format.block = block;
          format.rounding = rounding;
          f(format, std::string(named.name) + " scaling " + std::to_string(scaling) + " block " +
                        std::to_string(block) + " rounding " + std::to_string(rounding));
        }
      }
    }
  }
}

// Of both shapes of lines: rows that a block divides and rows that it doesn't, matrices in a batch.
std::vector<std::vector<int64_t>> shapes() { return {{3, 64}, {2, 21, 8}}; }

TEST(NumberQuantize, CpuIsTheComposite) {
  for_all([](const NumberFormat& f, const std::string& what) {
    for (const auto& shape : shapes()) {
      for (const auto dtype : {at::kFloat, at::kBFloat16}) {
        const at::Tensor x = normal(shape, dtype);
        for (const bool columns : {false, true}) {
          const MaybeTensor clock = clock_of(4, 17);
          const at::Tensor actual = number_quantize(x, columns, f, 3, 5, clock);
          const at::Tensor expected = composite::number_quantize({x, columns, f, 3, 5, clock});
          EXPECT_TRUE(actual.eq(expected).all().item<bool>()) << what << " " << name_of(dtype);
        }
      }
    }
  });
}

TEST(NumberQuantize, CudaIsTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](const NumberFormat& f, const std::string& what) {
    for (const auto& shape : shapes()) {
      for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
        const at::Tensor x = normal(shape, dtype), on_gpu = x.to(at::kCUDA);
        for (const bool columns : {false, true}) {
          const at::Tensor expected = number_quantize(x, columns, f, 3, 5, clock_of(4, 17));
          const MaybeTensor clock = clock_of(4, 17).to(at::kCUDA);
          const at::Tensor actual = number_quantize(on_gpu, columns, f, 3, 5, clock);
          EXPECT_TRUE(actual.to(at::kCPU).eq(expected).all().item<bool>())
              << what << " " << name_of(dtype);
        }
      }
    }
  });
}

TEST(NumberQuantize, ABlockSharesThePowerOfItsLargestElement) {
  const at::Tensor x = at::tensor({0.3f, -5.0f, 0.01f, 100.0f, 0.3f, 0.0f, 0.01f, -0.02f});
  NumberFormat f{2, 1, 6};
  f.scaling = 1;
  f.block = 4;
  // 2^(6 - 2) = 16 and 2^(-2 - 2) = 1/16.
  const at::Tensor expected = at::tensor({0.0f, -8.0f, 0.0f, 96.0f, 0.25f, 0.0f, 0.0f, -0.03125f});
  EXPECT_TRUE(number_quantize(x, false, f).equal(expected)) << number_quantize(x, false, f);
  EXPECT_TRUE(number_quantize(x.view({8, 1}), true, f).equal(expected.view({8, 1})));
}

TEST(NumberQuantize, ExtremesStayInsideTheFormat) {
  NumberFormat f{4, 3, 448};
  f.scaling = 1;
  f.block = 2;
  const float inf = INFINITY, tiny = std::ldexp(1.0f, -149), huge = std::ldexp(1.0f, 127);
  const at::Tensor y = number_quantize(at::tensor({inf, 1.0f, tiny, 0.0f, huge, -huge}), false, f);
  EXPECT_FALSE(y.isnan().any().item<bool>());
  EXPECT_FALSE(y.isinf().any().item<bool>());
  EXPECT_EQ(y[3].item<float>(), 0);
  EXPECT_EQ(y[4].item<float>(), huge);
  EXPECT_EQ(y[5].item<float>(), -huge);
  EXPECT_TRUE(number_quantize(at::tensor({NAN, 1.0f}), false, f).isnan()[0].item<bool>());
}

TEST(NumberQuantize, SymmetricIntegersAreWholeStepsOfTheLargest) {
  NumberFormat f{0, 6, 127.0 / 64};
  f.scaling = 3;
  const at::Tensor x = normal({5, 300}, at::kFloat);
  const at::Tensor step = x.abs().amax(1, true) / 127, q = number_quantize(x, false, f) / step;
  EXPECT_LT((q - q.round()).abs().max().item<float>(), 1e-4);
  EXPECT_LT((q - x / step).abs().max().item<float>(), 0.5001);
  EXPECT_NEAR(q.abs().max().item<float>(), 127, 1e-3);
}

TEST(NumberQuantize, AsymmetricIntegersUseEveryLevel) {
  NumberFormat f{0, 2, 7.0 / 4};  // 4 bits
  f.scaling = 4;
  const at::Tensor x = at::arange(1000, at::kFloat).view({1, 1000}) / 1000 + 0.0f;
  const at::Tensor y = number_quantize(x, false, f);
  EXPECT_EQ(std::get<0>(at::_unique2(y)).numel(), 16);
  EXPECT_EQ(y[0][0].item<float>(), 0);
  EXPECT_LT((y - x).abs().max().item<float>(), 0.5001 / 15);
}

TEST(NumberQuantize, StochasticRoundingIsRightOnAverageAndLeavesExactNumbersAlone) {
  NumberFormat f{4, 3, 448};
  f.rounding = 3;
  const MaybeTensor clock = clock_of(1, 0);
  const at::Tensor y = number_quantize(at::full({200000}, 1.03), false, f, 1, 2, clock);
  EXPECT_NEAR(y.mean().item<double>(), 1.03, 5 * 0.0535 / std::sqrt(200000.0));
  const at::Tensor exact = at::full({1000}, 1.125f);
  EXPECT_TRUE(identical(number_quantize(exact, false, f, 1, 2, clock), exact));
  EXPECT_FALSE(identical(y, number_quantize(at::full({200000}, 1.03), false, f, 1, 3, clock)));
  EXPECT_FALSE(
      identical(y, number_quantize(at::full({200000}, 1.03), false, f, 1, 2, clock_of(2, 0))));
}

TEST(NumberQuantize, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({4}, at::kFloat);
  EXPECT_THROW(number_quantize(x.to(at::kLong), false, NumberFormat{}), c10::Error);
  EXPECT_THROW(number_quantize(x, true, NumberFormat{}), c10::Error);
  EXPECT_THROW(number_quantize(x, false, NumberFormat{9, 3, 448}), c10::Error);
  EXPECT_THROW(number_quantize(x, false, NumberFormat{4, 3, -1}), c10::Error);
  NumberFormat stochastic;
  stochastic.rounding = 3;
  EXPECT_THROW(number_quantize(x, false, stochastic), c10::Error);
}

}  // namespace numeric_quantize_test
}  // namespace refract
