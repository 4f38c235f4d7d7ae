// From what a tensor's values are to the range that quantizes them best.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace refract {

// A uniform quantizer: `levels` values from lo to hi, and a floor for a second operand, below which
// nothing but zero is: lut_min times the range's end (ops/optical/quantize/quantization_math.h).
struct QuantizerShape {
  int64_t levels = 256;
  double lut_min = 0;
};

struct RangeSearch {
  // minmax: all values. quantile: from `low` to `high` of them. mse: the least mean squared error.
  // kl: the least Kullback-Leibler divergence of the values' distribution from the quantized one's
  // (Migacz, "8-bit inference with TensorRT", 2017), here with a quantizer's two ends.
  std::string method = "minmax";
  double low = 0.001, high = 0.999;
};

// Fails (usage) for an unknown method and for quantiles that do not rise within [0, 1].
void check_range_search(const RangeSearch& search);

// Gathers values of one range [2], or of the ranges [rows, 2] of rows.
class RangeStatistics {
 public:
  // rows = 0: one range of everything.
  explicit RangeStatistics(int64_t rows) : rows_(rows) {}

  // values of any shape, or [rows, n]; float or double.
  void add(const at::Tensor& values);
  // float, [2] or [rows, 2] of (lo, hi), on the device of the values. At least one call of add().
  at::Tensor range(const RangeSearch& search, const QuantizerShape& shape) const;

 private:
  // A histogram whose bins are even in asinh: fine around zero and as wide as outliers want, so
  // that one pass over the data does. Of rows the values themselves are kept, some thousands of
  // each.
  void count(const at::Tensor& values);
  void keep(const at::Tensor& values);

  int64_t rows_;
  at::Tensor lo_, hi_;  // float, [] or [rows]
  at::Tensor counts_, sums_;
  at::Tensor kept_;  // [rows, n]
};

}  // namespace refract
