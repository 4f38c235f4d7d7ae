// A rotation that is learned: x -> x R block by block along the last dimension, R = (I + A)^-1 (I -
// A) with A = P - P^T for the numbers P above the diagonal, which are the parameters (the Cayley
// transform, as SpinQuant trains it: Liu et al., arXiv 2405.16406, section 3.2). R is orthogonal
// for any P, and the identity for P = 0.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/slots.h"

namespace refract {

class LearnedTurn {
 public:
  // Declares the parameter `name` [width / block * block (block - 1) / 2], 0 at first. `block`
  // divides the width.
  LearnedTurn(Build build, const std::string& name, int64_t width, int64_t block);

  // [width / block, block, block] in `like`'s type, recorded by autograd.
  at::Tensor matrices(const at::Tensor& like) const;
  // x [..., width] by such matrices, and by their transposes, which turns it back.
  static at::Tensor apply(const at::Tensor& x, const at::Tensor& matrices);
  static at::Tensor invert(const at::Tensor& y, const at::Tensor& matrices);
  int64_t multiplications() const { return blocks_ * block_ * block_; }  // per vector

 private:
  ParameterArena& arena_;
  Parameter* above_;
  int64_t blocks_, block_;
};

// (I + A)^-1 (I - A) of above [blocks, block (block - 1) / 2], float or double.
at::Tensor cayley(const at::Tensor& above, int64_t block);

}  // namespace refract
