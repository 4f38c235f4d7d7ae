// Optical quantization of a tensor: ops/optical/quantize/quantization_math.h element by element.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

#include "ops/common/op.h"

namespace refract {

// What is added to a level's position before it is rounded.
struct OpticalNoise {
  bool on = false;  // an independent number per element
  // Instead, one number for every element of every call: what mase-triton does, see
  // optical::mase_shared_noise(). Used where it has a value.
  std::optional<double> shared;
  // Where `on`: int64 [2] on the device, (step, index in the global batch of the first slice along
  // the result's dimension 0); none: step -1, slice 0.
  std::optional<at::Tensor> clock;
  int64_t seed = 0, stream = 0;
};
template <>
inline constexpr bool kListedByField<OpticalNoise> = true;

// Q(x; range, levels) of any shape, in x's type; with lut_min > 0 the LUT floor follows. An unset
// range is taken from x. The gradient is the straight-through one: that of the identity.
struct OpticalQuantizeInputs {
  const at::Tensor &x, &range;
  int64_t levels;
  double lut_min;
  const OpticalNoise& noise;
};
inline constexpr Op<"optical_quantize", at::Tensor(OpticalQuantizeInputs)> optical_quantize;

// Sets or moves `range` by what it sees in x: minimum and maximum, or the two `quantiles` (linearly
// interpolated) where there are two.
struct OpticalObserveInputs {
  const at::Tensor &range, &x;
  double smooth;
  at::ArrayRef<double> quantiles;
};
inline constexpr Op<"optical_observe_", void(OpticalObserveInputs)> optical_observe_;

namespace composite {

at::Tensor optical_quantize(const OpticalQuantizeInputs& in);
void optical_observe_(const OpticalObserveInputs& in);

// float [2]: minimum and maximum of x, or its quantiles. x must not be empty.
at::Tensor optical_seen(const at::Tensor& x, at::ArrayRef<double> quantiles);
// `range` where it is set, else `seen`; float [2].
at::Tensor optical_effective(const at::Tensor& range, const at::Tensor& seen);
// range = moved(from, seen, smooth).
void optical_move_(const at::Tensor& range, const at::Tensor& from, const at::Tensor& seen,
                   double smooth);

// Levels (whole numbers, in double for double and else in float) of x for a set range.
at::Tensor optical_levels(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                          const at::Tensor& xi);
// Their values.
at::Tensor optical_values(const at::Tensor& level, const at::Tensor& range, int64_t levels,
                          double lut_min);
// xi for every element of a result of these sizes: float; a scalar for shared noise, undefined
// without noise.
at::Tensor optical_xi(at::IntArrayRef sizes, at::Device device, bool noise,
                      std::optional<double> shared_noise, const std::optional<at::Tensor>& clock,
                      int64_t seed, int64_t stream);

}  // namespace composite

namespace optical_op {

void check_levels(const char* op, int64_t levels, double lut_min);
void check_range(const char* op, const char* name, const at::Tensor& range, const at::Tensor& x);
void check_clock(const char* op, const std::optional<at::Tensor>& clock, const at::Tensor& x);
void check_quantiles(const char* op, at::ArrayRef<double> quantiles);
void check_smooth(const char* op, double smooth);
void check_quantize(const OpticalQuantizeInputs& in);
void check_observe(const OpticalObserveInputs& in);

}  // namespace optical_op

}  // namespace refract
