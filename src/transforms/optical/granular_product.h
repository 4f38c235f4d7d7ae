// The optical product with a range for each row of an operand, in plain tensor expressions:
//   y = Q_noisy(Q(a) . Q_lut(b)^T)
// with the quantizers of ops/optical/quantize/quantization_math.h. A row of a is a token, a row of
// b an output channel: what scales a whole row scales digitally around the medium, so that one
// large token or channel costs the others no levels.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace refract {

// A range is a tensor [..., 2] of (lo, hi): [2] of a whole tensor, or [..., rows, 2], which
// broadcasts over the batch dimensions.
struct GranularProduct {
  int64_t levels = 256;
  double lut_min = 0;
  at::Tensor a_range, b_range;
  at::Tensor b_values;   // Q_lut(b), made earlier; undefined: made now
  at::Tensor out_range;  // float [2], set or not; undefined: each row of the product has its own
  at::Tensor xi;         // noise of the product, in levels; undefined: none
  at::Tensor hidden;  // bool, broadcasts to the product: what counts in no range; undefined: none
  // The gradient is that of the quantized operands, straight through each quantizer
  // (transforms/optical/straight_quantize.h), and reaches the ranges; else the dense product's.
  bool operands = false;
  at::Tensor out_factor;  // [2], of the product's ranges; undefined: 1
};

// a [..., M, K], b [..., N, K], float or double, with the same batch dimensions -> [..., M, N].
// `seen`, where given, becomes the range [2] of the product before its quantization.
at::Tensor granular_product(const at::Tensor& a, const at::Tensor& b, const GranularProduct& how,
                            at::Tensor* seen = nullptr);

// Q(x), in x's type, which is float or double.
at::Tensor granular_quantize(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                             double lut_min, const at::Tensor& xi = {});

// float [..., rows, 2]: minimum and maximum of each row of x [..., rows, n], or float [2] of all x,
// without what is hidden.
at::Tensor row_ranges(const at::Tensor& x, const at::Tensor& hidden = {});
at::Tensor whole_range(const at::Tensor& x, const at::Tensor& hidden = {});
// `range` [..., 2] where it is set, else `seen`.
at::Tensor set_or_seen(const at::Tensor& range, const at::Tensor& seen);
// range <- smooth range + (1 - smooth) seen, or seen where it was not set; nothing where `seen` is
// not finite.
void move_ranges_(const at::Tensor& range, const at::Tensor& seen, double smooth);

}  // namespace refract
