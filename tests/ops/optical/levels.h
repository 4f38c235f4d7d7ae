// How the outputs of optical products are compared: by levels.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/max.h>
#include <gtest/gtest.h>

#include <string>

namespace refract::testing {

inline constexpr at::ScalarType kKernelTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

inline double step_of(const at::Tensor& range, int64_t levels) {
  return (range[1].item<double>() - range[0].item<double>()) / static_cast<double>(levels - 1);
}

// Two computations of the same outputs: apart from what the element type rounds, elements may
// differ by one level, and only the `share` of them whose value lies that near the middle of two
// levels. shift: by how much the ranges differ that the two were quantized with.
inline void expect_levels(const at::Tensor& actual, const at::Tensor& expected, double step,
                          double share, const std::string& what, double shift = 0) {
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  const at::Tensor a = actual.detach().to(at::kCPU, at::kDouble);
  const at::Tensor e = expected.detach().to(at::kCPU, at::kDouble);
  const double type = actual.scalar_type() == at::kBFloat16 ? 1.0 / 128
                      : actual.scalar_type() == at::kHalf   ? 1.0 / 1024
                                                            : 1e-5;
  // Of the larger of the two: beside a zero the other level is what is rounded.
  const at::Tensor rounding = at::max(e.abs(), a.abs()).mul(type).add(1e-5 * step + shift);
  const at::Tensor difference = a.sub(e).abs();
  EXPECT_EQ(difference.isnan().sum().item<int64_t>(), 0) << what;
  EXPECT_LE(difference.sub(rounding).max().item<double>(), 1.001 * step) << what;
  const at::Tensor other = difference.gt(rounding.add(0.01 * step));
  EXPECT_LE(other.to(at::kDouble).mean().item<double>(), share) << what << ": other levels";
}

// fp32: sums of fp32 products. Half types on CUDA keep the product in fp16, 2^-12 of its value.
inline double share_of(at::ScalarType dtype, at::DeviceType device) {
  return dtype != at::kFloat && device == at::kCUDA ? 0.03 : 0.006;
}

inline double distance(const at::Tensor& a, const at::Tensor& b) {
  return a.to(at::kCPU).sub(b.to(at::kCPU)).abs().max().item<double>();
}

}  // namespace refract::testing
