// The schemas' flat argument lists, shared by every form of the optical products.
#pragma once
#include "ops/optical/matmul/product.h"

// OpticalSettings as the dispatcher passes them, and back.
#define REFRACT_OPTICAL_SETTINGS_SCHEMA                                                    \
  "int levels=256, float lut_min=0.02004, float smooth=0.9, float[] quantiles=[],"         \
  " bool train=False, bool ranges_set=False, bool clipped_ranges=False, bool noise=False," \
  " float? shared_noise=None, Tensor? clock=None, int seed=0, int[] streams=[]"
#define REFRACT_OPTICAL_SETTINGS_PARAMETERS                                                  \
  int64_t levels, double lut_min, double smooth, at::ArrayRef<double> quantiles, bool train, \
      bool ranges_set, bool clipped_ranges, bool noise, std::optional<double> shared_noise,  \
      const std::optional<at::Tensor>&clock, int64_t seed, at::IntArrayRef streams
#define REFRACT_OPTICAL_SETTINGS_PACK                                                   \
  ::refract::OpticalSettings {                                                          \
    levels, lut_min, smooth, quantiles.vec(), train, ranges_set, clipped_ranges, noise, \
        shared_noise, clock, seed, streams.vec()                                        \
  }
#define REFRACT_OPTICAL_SETTINGS_UNPACK(s)                                       \
  (s).levels, (s).lut_min, (s).smooth, (s).quantiles, (s).train, (s).ranges_set, \
      (s).clipped_ranges, (s).noise, (s).shared_noise, (s).clock, (s).seed, (s).streams

namespace refract::optical_op {

using EncodeResult = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
inline OpticalOperand operand_of(EncodeResult r) {
  return {std::get<0>(r), std::get<1>(r), std::get<2>(r), std::get<3>(r)};
}
inline OpticalOperand operand_of(at::TensorList encoded) {
  TORCH_CHECK(encoded.size() == 4,
              "refract::optical_linear: expected weight_encoded to be optical_encode's four "
              "tensors, got ",
              encoded.size());
  return {encoded[0], encoded[1], encoded[2], encoded[3]};
}
inline EncodeResult result_of(const OpticalOperand& o) { return {o.codes, o.sums, o.used, o.seen}; }

// The ops below autograd. `encoded` holds OpticalOperand's four tensors.
EncodeResult encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                    REFRACT_OPTICAL_SETTINGS_PARAMETERS);
at::Tensor linear_forward(const at::Tensor& x, const at::Tensor& weight, at::TensorList encoded,
                          const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                          at::TensorList w_ranges, at::TensorList out_ranges,
                          at::IntArrayRef splits, bool move_weights,
                          REFRACT_OPTICAL_SETTINGS_PARAMETERS);
at::Tensor matmul_forward(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                          const at::Tensor& b_range, const at::Tensor& out_range,
                          REFRACT_OPTICAL_SETTINGS_PARAMETERS);

}  // namespace refract::optical_op
