// Learned step size quantization (Esser et al., "LSQ", arXiv 1902.08153, equations 1 to 5).
//
// x^ = n s with n = clamp(floor(x / s + 1/2), low, high). The gradient of x is that of x^ where
// low < x / s < high and 0 elsewhere; that of s is, summed over elements and scaled by
// 1 / sqrt(high * numel),
//   low where x / s <= low, high where x / s >= high, n - x / s in between.
// numel counts one sequence (x without its first dimension), so that micro-batches change nothing.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace refract {

struct Levels {
  int64_t low = 0, high = 0;
};
// -count / 2 .. count / 2 - 1, or without a sign 0 .. count - 1.
Levels levels_of(int64_t count, bool is_signed);

// n, whole numbers in the type of `scale`, one number: float, or double for a double x.
at::Tensor lsq_count(const at::Tensor& x, const at::Tensor& scale, const Levels& levels);
// n s in `type`.
at::Tensor lsq_value(const at::Tensor& count, const at::Tensor& scale, at::ScalarType type);
// x^ in x's type, recorded by autograd for x and scale.
at::Tensor lsq_quantize(const at::Tensor& x, const at::Tensor& scale, const Levels& levels);

}  // namespace refract
