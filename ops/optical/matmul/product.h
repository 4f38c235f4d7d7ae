// What the optical products share: their settings, and the form of a matrix that is multiplied
// (Anderson et al., arXiv 2302.10360; the quantizer is ops/optical/quantize/quantization_math.h).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "ops/common/op.h"

namespace refract {

struct OpticalSettings {
  int64_t levels = 256;
  double lut_min = 0.020040;      // of the second operand; 0: no floor
  double smooth = 0.9;            // q_smooth_factor
  std::vector<double> quantiles;  // empty: ranges are minimum and maximum; else two
  bool train = false;             // the ranges move (and are set at first)
  // The caller knows that every range passed was set: nothing is read twice to find it out.
  bool ranges_set = false;
  // As mase-triton does: output ranges are learned from the layer's output, clipped and with bias.
  bool clipped_ranges = false;
  // Noise of the output, see OpticalNoise; one stream per member.
  bool noise = false;
  std::optional<double> shared_noise;
  std::optional<at::Tensor> clock;
  int64_t seed = 0;
  std::vector<int64_t> streams;
};
template <>
inline constexpr bool kListedByField<OpticalSettings> = true;

// A matrix in the form that is multiplied, optical::Coder's codes.
struct OpticalOperand {
  at::Tensor codes;  // [..., K]: fp16 on CUDA, fp32 on the CPU; empty for the composite form
  at::Tensor sums;   // float [rows], of the codes of a row
  at::Tensor used;   // float [M, 2], the range that each member was quantized with
  at::Tensor seen;   // float [M, parts, 2], what to merge to know the range of the data

  // As optical_linear() takes it.
  std::vector<at::Tensor> list() const { return {codes, sums, used, seen}; }
};

// x [..., K] as an operand; its rows belong to M members in turn, splits[m] rows with ranges[m].
struct OpticalEncodeInputs {
  const at::Tensor& x;
  at::TensorList ranges;
  at::IntArrayRef splits;
  const OpticalSettings& settings;
};
inline constexpr Op<"optical_encode", OpticalOperand(OpticalEncodeInputs)> optical_encode;

namespace optical_op {

// The settings' part of a schema.
inline constexpr const char* kSettings =
    "int levels=256, float lut_min=0.02004, float smooth=0.9, float[] quantiles=[],"
    " bool train=False, bool ranges_set=False, bool clipped_ranges=False, bool noise=False,"
    " float? shared_noise=None, Tensor? clock=None, int seed=0, int[] streams=[]";

constexpr int kMaxMembers = 8;
constexpr int64_t kEncodeParts = 512;  // of OpticalOperand::seen on CUDA

// Whether the kernels, not the composite form, do it: not for float64, quantiles, or more levels
// than fp16 holds exactly.
bool has_kernel(const at::Tensor& x, const OpticalSettings& settings);
void check_settings(const char* op, const OpticalSettings& settings, size_t members,
                    const at::Tensor& x);
// Raise unless there is a range for each member, and the members' rows are all `rows` of `what`.
void check_ranges(const char* op, const char* name, at::TensorList ranges, size_t members,
                  const at::Tensor& x);
void check_splits(const char* op, const char* what, at::IntArrayRef splits,
                  const c10::SymInt& rows);
void check_encode(const OpticalEncodeInputs& in);

}  // namespace optical_op

// The definition, the test's oracle and the fallback. They move the ranges as the ops do.
namespace composite {

OpticalOperand optical_encode(const OpticalEncodeInputs& in);
// The last part of a product, of one member: Q_noisy(product) + bias, in product's type.
at::Tensor optical_output(const at::Tensor& product, const MaybeTensor& bias,
                          const at::Tensor& range, const OpticalSettings& settings, size_t member);

}  // namespace composite

}  // namespace refract
