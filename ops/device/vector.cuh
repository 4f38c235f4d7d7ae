// 16-byte loads and stores of the kernels' element types.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "ops/common/dtype.h"

namespace refract {

template <class T, int N>
struct alignas(sizeof(T) * N) Vec {
  T at[N];
};

// Elements in 16 bytes.
template <class T>
constexpr int kVec = 16 / static_cast<int>(sizeof(T));

template <class T, int N = kVec<T>>
__device__ __forceinline__ Vec<T, N> load_vec(const T* p) {
  return *reinterpret_cast<const Vec<T, N>*>(p);
}
template <class T, int N>
__device__ __forceinline__ void store_vec(T* p, const Vec<T, N>& v) {
  *reinterpret_cast<Vec<T, N>*>(p) = v;
}

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float to_float(__half x) { return __half2float(x); }

template <class T>
__device__ __forceinline__ T from_float(float x);
template <>
__device__ __forceinline__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ __forceinline__ __nv_bfloat16 from_float<__nv_bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ __forceinline__ __half from_float<__half>(float x) {
  return __float2half_rn(x);
}

// True where every pointer (null ones too) may be read in 16-byte vectors.
template <class... P>
bool aligned16(const P*... p) {
  return ((reinterpret_cast<uintptr_t>(p) | ...) & 15) == 0;
}

template <class T>
struct CudaTag {
  using type = T;
};

// Calls f(CudaTag<T>{}) with the device type of `dtype`.
template <class F>
auto dispatch_cuda(Dtype dtype, F&& f) {
  switch (dtype) {
    case Dtype::kBFloat16:
      return f(CudaTag<__nv_bfloat16>{});
    case Dtype::kFloat16:
      return f(CudaTag<__half>{});
    default:
      return f(CudaTag<float>{});
  }
}

}  // namespace refract
