// A randomized orthogonal transform that spreads what stands in one channel over all of them
// (QuaRot: Ashkboos et al., arXiv 2404.00456): x -> H diag(signs) x along the last dimension.
//
// n = 2^k m with m odd. H is the Kronecker product of an orthonormal Hartley matrix of m and of
// Hadamard matrices of at most 64, each symmetric and so its own inverse. It is applied factor by
// factor, each a small matrix product.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace refract {

class Hadamard {
 public:
  // The signs are the stream `name` of the seed.
  Hadamard(int64_t width, uint64_t seed, const std::string& name);

  at::Tensor apply(const at::Tensor& x) const;   // [..., width], in x's type
  at::Tensor invert(const at::Tensor& y) const;  // apply()'s inverse, which is its transpose
  int64_t multiplications() const;               // per vector

 private:
  at::Tensor mixed(const at::Tensor& x) const;
  void prepare(const at::Tensor& like) const;

  int64_t width_;
  std::vector<at::Tensor> factors_;  // double, on the CPU
  at::Tensor signs_;
  mutable std::vector<at::Tensor> ready_;  // in the type and on the device of the last call
  mutable at::Tensor ready_signs_;
};

}  // namespace refract
