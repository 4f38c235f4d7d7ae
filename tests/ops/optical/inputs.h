// What the tests of the optical ops share.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <limits>

namespace refract::testing {

inline at::Tensor clock_of(int64_t step, int64_t first) {
  return at::tensor({step, first}, at::TensorOptions().dtype(at::kLong));
}
inline at::Tensor range_of(float lo, float hi) { return at::tensor({lo, hi}); }
inline at::Tensor unset() {
  const float inf = std::numeric_limits<float>::infinity();
  return range_of(inf, -inf);
}

}  // namespace refract::testing
