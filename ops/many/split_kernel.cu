// Each thread splits four neighbouring numbers: one 16-byte load, three 8-byte stores.
#include "ops/dense/activation/activation_math.cuh"
#include "ops/device/vector.cuh"
#include "ops/many/split_kernel.h"

namespace refract {
namespace {

constexpr int kThreads = 256;

struct Nothing {
  template <bool kFast>
  static __device__ __forceinline__ float forward(float x, float) {
    return x;
  }
};

template <class Before>
__global__ void __launch_bounds__(kThreads)
    split_kernel(const float* x, __nv_bfloat16* out, int64_t vectors, int64_t width) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < vectors;
       i += stride) {
    const Vec<float, 4> value = load_vec<float, 4>(x + 4 * i);
    const int64_t row = 4 * i / width, column = 4 * i - row * width;
    Vec<__nv_bfloat16, 4> high, low;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float x_j = Before::template forward<false>(value.at[j], 0.0f);
      high.at[j] = __float2bfloat16_rn(x_j);
      low.at[j] = __float2bfloat16_rn(x_j - __bfloat162float(high.at[j]));
    }
    __nv_bfloat16* to = out + 3 * row * width + column;
    store_vec<__nv_bfloat16, 4>(to, high);
    store_vec<__nv_bfloat16, 4>(to + width, high);
    store_vec<__nv_bfloat16, 4>(to + 2 * width, low);
  }
}

template <class Before>
cudaError_t launch(const float* x, void* out, int64_t rows, int64_t width, cudaStream_t stream) {
  const int64_t vectors = rows * width / 4;
  if (vectors == 0) return cudaSuccess;
  const int64_t blocks = (vectors + kThreads - 1) / kThreads;
  constexpr int64_t kMostBlocks = 132 * 16;  // several per multiprocessor; each thread walks on
  split_kernel<Before>
      <<<static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks), kThreads, 0, stream>>>(
          x, static_cast<__nv_bfloat16*>(out), vectors, width);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_split_bfloat16(BeforeSplit before, const float* x, void* out, int64_t rows,
                                  int64_t width, cudaStream_t stream) {
  switch (before) {
    case BeforeSplit::kGeluTanh:
      return launch<GeluTanh>(x, out, rows, width, stream);
    case BeforeSplit::kGeluErf:
      return launch<GeluErf>(x, out, rows, width, stream);
    default:
      return launch<Nothing>(x, out, rows, width, stream);
  }
}

}  // namespace refract
