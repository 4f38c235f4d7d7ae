// The optical quantizer straight through itself, and ranges that are learned.
//
// x^ = x + c w within the range (lo, hi), w = hi - lo, where c is what rounding, noise and the
// darkest level add, in shares of the range; x beyond the range is at its end. c counts as a
// constant, as the rounding of a number does in learned step sizes (LSQ: Esser et al., arXiv
// 1902.08153, equations 3 and 5). So
//   dx = g inside, 0 beyond;  dhi = sum g ([x > hi] + c);  dlo = sum g ([x < lo] - c).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/slots.h"

namespace refract {

// granular_quantize() (transforms/optical/granular_product.h), recorded by autograd for x and for
// `range` [..., 2], which broadcasts over rows of x.
at::Tensor straight_quantize(const at::Tensor& x, const at::Tensor& range, int64_t levels,
                             double lut_min, const at::Tensor& xi = {});

// `range` [..., 2] with its ends moved away from 0, or towards it, by `factor` [..., 2]; a range
// that does not hold 0 from its end nearest to it. Recorded by autograd for the factor.
at::Tensor scaled_range(const at::Tensor& range, const at::Tensor& factor);

// Factors of ranges, learned: exp(p) of the parameter `name` [numbers of `sizes`], 0 at first.
class RangeFactor {
 public:
  RangeFactor(Build build, const std::string& name, std::vector<int64_t> sizes);
  at::Tensor factor() const;  // float or double [sizes], recorded by autograd

 private:
  ParameterArena& arena_;
  Parameter* log_;
  std::vector<int64_t> sizes_;
};

}  // namespace refract
