// A thread has 16 bytes of elements, which are one or two Philox blocks where the first element's
// index is a multiple of four (it is, in a training step).
#include "ops/dense/activation/dropout_kernel.h"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kThreads = 256;

template <class T>
__device__ __forceinline__ T drop(T x, uint32_t word, const DropoutArgs& a) {
  return from_float<T>(philox_uniform(word) >= a.p ? to_float(x) * a.scale : 0.0f);
}

template <class T>
__global__ void __launch_bounds__(kThreads) dropout_kernel(DropoutArgs a, bool aligned) {
  constexpr int N = kVec<T>;
  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  const uint64_t step = static_cast<uint64_t>(a.clock[0]);
  const uint64_t first = static_cast<uint64_t>(a.clock[1]);
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < a.count;
       i += stride) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    if (aligned && (first & 3) == 0 && i + N <= a.count) {
      Vec<T, N> v = load_vec(x + i);
#pragma unroll
      for (int j = 0; j < N; j += 4) {
        const PhiloxBlock block = philox(a.key, step, (index + j) >> 2);
#pragma unroll
        for (int k = 0; k < 4; ++k) v.at[j + k] = drop(v.at[j + k], block.word[k], a);
      }
      store_vec(y + i, v);
    } else {
      for (int j = 0; j < N && i + j < a.count; ++j) {
        y[i + j] = drop(x[i + j], philox_word(a.key, step, index + j), a);
      }
    }
  }
}

}  // namespace

cudaError_t launch_dropout(const DropoutArgs& a, Dtype dtype, int multiprocessors,
                           cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t per_block = kThreads * kVec<T>;
    const int64_t blocks = (a.count + per_block - 1) / per_block;
    const int64_t most = static_cast<int64_t>(multiprocessors) * 32;
    dropout_kernel<T>
        <<<static_cast<unsigned>(blocks < most ? blocks : most), kThreads, 0, stream>>>(
            a, aligned16(a.x, a.y));
    return cudaGetLastError();
  });
}

}  // namespace refract
