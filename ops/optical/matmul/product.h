// Optical matrix products: y = Q_noisy(Q(x) . Q_lut(W)^T) + b for a linear layer or several that
// share their input, and y = Q_noisy(Q(a) . Q_lut(b)) for two activations. Anderson et al., arXiv
// 2302.10360; the quantizer is ops/optical/quantize/quantization_math.h.
//
// The gradient is straight-through with the unquantized operands: exactly the dense product's.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

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

// A matrix in the form that is multiplied, optical::Coder's codes.
struct OpticalOperand {
  at::Tensor codes;  // [..., K]: fp16 on CUDA, fp32 on the CPU; empty for the composite form
  at::Tensor sums;   // float [rows], of the codes of a row
  at::Tensor used;   // float [M, 2], the range that each member was quantized with
  at::Tensor seen;   // float [M, parts, 2], what to merge to know the range of the data
};

// x [..., K] as an operand; its rows belong to M members in turn, splits[m] rows with ranges[m].
OpticalOperand optical_encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                              const OpticalSettings& settings);

// x [..., K], weight [N, K], bias [N] -> [..., N] in x's type. M layers lie side by side in weight:
// splits[m] of its N rows, each with its own ranges. weight_encoded: optical_encode(weight) of the
// same weight, made earlier; none: it is made now. With settings.train the ranges move: x_range,
// out_ranges and, where `move_weights`, w_ranges.
at::Tensor optical_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                          at::TensorList w_ranges, at::TensorList out_ranges,
                          at::IntArrayRef splits, const OpticalOperand* weight_encoded,
                          bool move_weights, const OpticalSettings& settings);

// a [..., T, K] times b [..., K, S] with equal leading dimensions -> [..., T, S]. The LUT floor is
// b's. One noise stream.
at::Tensor optical_matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                          const at::Tensor& b_range, const at::Tensor& out_range,
                          const OpticalSettings& settings);

namespace optical_op {

constexpr int kMaxMembers = 8;
constexpr int64_t kEncodeParts = 512;  // of OpticalOperand::seen on CUDA

// Whether the kernels, not the composite form, do it: not for float64, quantiles, or more levels
// than fp16 holds exactly.
bool has_kernel(const at::Tensor& x, const OpticalSettings& settings);
void check_settings(const char* op, const OpticalSettings& settings, size_t members,
                    const at::Tensor& x);
void check_encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                  const OpticalSettings& settings);
void check_linear(const at::Tensor& x, const at::Tensor& weight,
                  const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                  at::TensorList w_ranges, at::TensorList out_ranges, at::IntArrayRef splits,
                  const OpticalSettings& settings);
void check_matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                  const at::Tensor& b_range, const at::Tensor& out_range,
                  const OpticalSettings& settings);

}  // namespace optical_op

// The definition, the test's oracle and the fallback. They move the ranges as the ops do.
namespace composite {

OpticalOperand optical_encode(const at::Tensor& x, at::TensorList ranges, at::IntArrayRef splits,
                              const OpticalSettings& settings);
at::Tensor optical_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, const at::Tensor& x_range,
                          at::TensorList w_ranges, at::TensorList out_ranges,
                          at::IntArrayRef splits, const OpticalOperand& weight_encoded,
                          bool move_weights, const OpticalSettings& settings);
at::Tensor optical_matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                          const at::Tensor& b_range, const at::Tensor& out_range,
                          const OpticalSettings& settings);
// Their last part, of one member: Q_noisy(product) + bias, in product's type.
at::Tensor optical_output(const at::Tensor& product, const std::optional<at::Tensor>& bias,
                          const at::Tensor& range, const OpticalSettings& settings, size_t member);

}  // namespace composite

}  // namespace refract
