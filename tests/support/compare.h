// What the tests of the element-wise ops share: random inputs, and the runs over types and devices.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "support/cuda_guard.h"
#include "support/tolerances.h"

namespace refract::testing {

using Tensors = std::vector<at::Tensor>;

inline const at::ScalarType kAllTypes[] = {at::kDouble, at::kFloat, at::kBFloat16, at::kHalf};

inline std::string name_of(at::ScalarType dtype) { return c10::toString(dtype); }

// Normal numbers, rounded to `dtype`.
inline at::Tensor normal(at::IntArrayRef sizes, at::ScalarType dtype) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble)).to(dtype);
}

inline void expect_all_close(const Tensors& actual, const Tensors& expected,
                             const std::string& what, double factor = 1.0) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  for (size_t i = 0; i < actual.size(); ++i) {
    expect_close(actual[i], expected[i], what + ", output " + std::to_string(i), factor);
  }
}

inline Tensors to_cuda(const Tensors& tensors) {
  Tensors out;
  for (const auto& t : tensors) out.push_back(t.defined() ? t.to(at::kCUDA) : t);
  return out;
}

// Bit for bit, NaNs included.
inline bool identical(const at::Tensor& a, const at::Tensor& b) {
  return a.sizes() == b.sizes() && a.scalar_type() == b.scalar_type() &&
         a.contiguous().view(at::kByte).equal(b.contiguous().view(at::kByte));
}

inline std::optional<at::Tensor> maybe(const at::Tensor& t) {
  return t.defined() ? std::optional<at::Tensor>(t) : std::nullopt;
}

}  // namespace refract::testing
