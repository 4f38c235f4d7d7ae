// From a tensor's run-time element type to a C++ type, without ATen's macros.
#pragma once
#include <ATen/core/Tensor.h>

#include <type_traits>

#include "ops/common/dtype.h"

namespace refract {

// The type that sums and functions of T are computed in: double for double, float otherwise.
template <class T>
using Accumulate = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
struct TypeTag {
  using type = T;
};

// Calls f(TypeTag<T>{}) with T = double, float, at::BFloat16 or at::Half.
template <class F>
decltype(auto) dispatch_floating(at::ScalarType dtype, const char* op, F&& f) {
  switch (dtype) {
    case at::kDouble:
      return f(TypeTag<double>{});
    case at::kFloat:
      return f(TypeTag<float>{});
    case at::kBFloat16:
      return f(TypeTag<at::BFloat16>{});
    case at::kHalf:
      return f(TypeTag<at::Half>{});
    default:
      TORCH_CHECK(false, "refract::", op, ": expected float64, float32, bfloat16 or float16, got ",
                  dtype);
  }
}

// True where the CUDA kernels know the type; float64 goes to the composite form.
inline bool has_cuda_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf;
}

inline Dtype cuda_dtype(at::ScalarType dtype) {
  return dtype == at::kFloat      ? Dtype::kFloat32
         : dtype == at::kBFloat16 ? Dtype::kBFloat16
                                  : Dtype::kFloat16;
}

}  // namespace refract
