// Argument checks that name the op, what was expected and what came.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/util/Exception.h>

namespace refract {

inline void check_floating(const char* op, const char* name, const at::Tensor& t) {
  TORCH_CHECK(t.defined(), "refract::", op, ": ", name, " is undefined");
  TORCH_CHECK(at::isFloatingType(t.scalar_type()), "refract::", op, ": expected ", name,
              " to be float64, float32, bfloat16 or float16, got ", t.scalar_type());
}

// `t` has the element type and the device of `like`.
inline void check_like(const char* op, const char* name, const at::Tensor& t, const char* like_name,
                       const at::Tensor& like) {
  TORCH_CHECK(t.scalar_type() == like.scalar_type(), "refract::", op, ": expected ", name,
              " to have the type of ", like_name, ", ", like.scalar_type(), ", got ",
              t.scalar_type());
  TORCH_CHECK(t.device() == like.device(), "refract::", op, ": expected ", name, " on ",
              like.device(), " as ", like_name, ", got ", t.device());
}

inline void check_same_shape(const char* op, const char* name, const at::Tensor& t,
                             const char* like_name, const at::Tensor& like) {
  TORCH_CHECK(t.sym_sizes() == like.sym_sizes(), "refract::", op, ": expected ", name,
              " to have the shape of ", like_name, ", ", like.sym_sizes(), ", got ", t.sym_sizes());
}

// A vector of `size` elements.
inline void check_vector(const char* op, const char* name, const at::Tensor& t,
                         const c10::SymInt& size) {
  TORCH_CHECK(t.dim() == 1 && t.sym_size(0) == size, "refract::", op, ": expected ", name,
              " of shape [", size, "], got ", t.sym_sizes());
}

}  // namespace refract
