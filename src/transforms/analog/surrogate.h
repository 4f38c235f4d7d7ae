// The gradient of a product whose forward pass has none: that of the dense product of the operands
// as the medium has them, with rounding, conversion and noise passed straight through.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/slots.h"

namespace refract {

struct Surrogate {
  at::Tensor x;       // [..., K], as it came
  at::Tensor weight;  // [N, K], as it is a parameter
  at::Tensor used;    // [N, K], what x is multiplied by: dx = g used, dW = g^T x; undefined: weight
  // r of each input, [K], beyond which x is cut off: x counts as cut there and has no gradient;
  // undefined: nothing is.
  at::Tensor limits;
  // A parameter r [tiles] that limits came from, with `rows` inputs to a tile; undefined: none.
  // Its gradient (aihwkit) is
  //   r (sum min(dx, 0) over x >= r - sum max(dx, 0) over x <= -r) + decay r,
  // where dx is the gradient before it is cut off, and the last term stands where more than 95%
  // of the tile's inputs are inside.
  at::Tensor range;
  int64_t rows = 0;
  double decay = 0;
};

// y [..., N], which was computed without gradients from these, as a function of x, weight and
// range.
at::Tensor with_surrogate_gradient(const at::Tensor& y, const Surrogate& of);

}  // namespace refract
