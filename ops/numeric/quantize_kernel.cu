// Three shapes of work, each reading x once from memory:
// - packed: blocks of a power of two elements along rows, 16 bytes a thread, a few neighbouring
//   threads to a block, which find its limits by shuffles;
// - spread: any other block along rows, a warp to each, which reads it a second time from the
// cache;
// - columns: a thread walks down one block of one column, twice; neighbours have neighbouring
//   columns.
#include <algorithm>

#include "ops/device/vector.cuh"
#include "ops/numeric/quantize_kernel.h"
#include "ops/numeric/with_format.h"

namespace refract {
namespace {

using numeric::Group;
using numeric::Limits;
using numeric::Rounding;
using numeric::Scaling;

constexpr int kThreads = 256;

__device__ __forceinline__ Limits merged_with(Limits l, int lane_mask) {
  return merge(l, {__shfl_xor_sync(~0u, l.lo, lane_mask), __shfl_xor_sync(~0u, l.hi, lane_mask)});
}

__device__ __forceinline__ Group group_in(const NumberArgs& a, Limits own) {
  const Limits tensor = a.tensor == nullptr ? Limits{0.0f, 0.0f} : *a.tensor;
  return group_of(a.format, a.of_tensor ? tensor : own, tensor);
}

// `index` counts elements line by line.
template <Rounding rounding>
__device__ __forceinline__ float uniform_at(const NumberArgs& a, int64_t index) {
  if (rounding != Rounding::kStochastic) return 0.0f;
  return philox_uniform(philox_word(a.key, static_cast<uint64_t>(a.clock[0]),
                                    static_cast<uint64_t>(a.clock[1] + index)));
}

template <class T, Rounding rounding, Scaling scaling>
__global__ void __launch_bounds__(kThreads) packed_kernel(NumberArgs a, int64_t count) {
  constexpr int N = kVec<T>;
  const int lanes = static_cast<int>(a.block) / N;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  const bool here = i < count;
  Vec<T, N> v{};
  if (here) v = load_vec(static_cast<const T*>(a.x) + i);
  Limits own{0.0f, 0.0f};
#pragma unroll
  for (int j = 0; j < N; ++j) own = include(own, to_float(v.at[j]));
  for (int mask = 1; mask < lanes; mask *= 2) own = merged_with(own, mask);
  if (!here) return;
  const Group g = group_in(a, own);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    v.at[j] = from_float<T>(numeric::in_group<rounding, scaling>(to_float(v.at[j]), a.format, g,
                                                                 uniform_at<rounding>(a, i + j)));
  }
  store_vec(static_cast<T*>(a.y) + i, v);
}

template <class T, Rounding rounding, Scaling scaling>
__global__ void __launch_bounds__(kThreads) spread_kernel(NumberArgs a, int64_t blocks_per_line) {
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (warp >= a.matrices * a.rows * blocks_per_line) return;
  const int64_t start = warp % blocks_per_line * a.block;
  const int64_t n = min(a.block, a.columns - start);
  const int64_t first = warp / blocks_per_line * a.columns + start;
  const T* x = static_cast<const T*>(a.x) + first;
  Limits own{0.0f, 0.0f};
  if (!a.of_tensor) {
    for (int64_t i = lane; i < n; i += 32) own = include(own, to_float(x[i]));
    for (int mask = 1; mask < 32; mask *= 2) own = merged_with(own, mask);
  }
  const Group g = group_in(a, own);
  T* y = static_cast<T*>(a.y) + first;
  for (int64_t i = lane; i < n; i += 32) {
    y[i] = from_float<T>(numeric::in_group<rounding, scaling>(to_float(x[i]), a.format, g,
                                                              uniform_at<rounding>(a, first + i)));
  }
}

// Grid: x over columns, y over blocks of rows, z over matrices. A thread has two columns where they
// are even in number.
template <class T, int N, Rounding rounding, Scaling scaling>
__global__ void __launch_bounds__(kThreads) columns_kernel(NumberArgs a) {
  const int64_t column = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (column >= a.columns) return;
  const int64_t start = blockIdx.y * a.block;
  const int64_t n = min(a.block, a.rows - start);
  const int64_t matrix = blockIdx.z;
  const int64_t first = (matrix * a.rows + start) * a.columns + column;
  const T* x = static_cast<const T*>(a.x) + first;
  T* y = static_cast<T*>(a.y) + first;
  Limits own[N] = {};
  if (!a.of_tensor && scaling != Scaling::kNone) {
#pragma unroll 8
    for (int64_t i = 0; i < n; ++i) {
      const Vec<T, N> v = load_vec<T, N>(x + i * a.columns);
#pragma unroll
      for (int j = 0; j < N; ++j) own[j] = include(own[j], to_float(v.at[j]));
    }
  }
  Group g[N];
#pragma unroll
  for (int j = 0; j < N; ++j) g[j] = group_in(a, own[j]);
#pragma unroll 8
  for (int64_t i = 0; i < n; ++i) {
    Vec<T, N> v = load_vec<T, N>(x + i * a.columns);
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int64_t index = (matrix * a.columns + column + j) * a.rows + start + i;
      v.at[j] = from_float<T>(numeric::in_group<rounding, scaling>(
          to_float(v.at[j]), a.format, g[j], uniform_at<rounding>(a, index)));
    }
    store_vec(y + i * a.columns, v);
  }
}

unsigned blocks_for(int64_t items, int64_t each) {
  return static_cast<unsigned>((items + each - 1) / each);
}

template <class T>
bool packs(const NumberArgs& a) {
  const int64_t lanes = a.block / kVec<T>;
  return a.block % kVec<T> == 0 && (lanes & (lanes - 1)) == 0 && lanes <= 32 &&
         a.columns % a.block == 0 && aligned16(a.x, a.y);
}

template <class T, Rounding rounding, Scaling scaling>
void launch(const NumberArgs& a, cudaStream_t stream) {
  const int64_t count = a.matrices * a.rows * a.columns;
  if (a.along_columns) {
    const bool pairs = a.columns % 2 == 0 && aligned16(a.x, a.y);
    const dim3 grid(blocks_for(a.columns, pairs ? 2 * kThreads : kThreads),
                    blocks_for(a.rows, a.block), static_cast<unsigned>(a.matrices));
    if (pairs) {
      columns_kernel<T, 2, rounding, scaling><<<grid, kThreads, 0, stream>>>(a);
    } else {
      columns_kernel<T, 1, rounding, scaling><<<grid, kThreads, 0, stream>>>(a);
    }
  } else if (packs<T>(a)) {
    packed_kernel<T, rounding, scaling>
        <<<blocks_for(count, kThreads * kVec<T>), kThreads, 0, stream>>>(a, count);
  } else {
    const int64_t per_line = (a.columns + a.block - 1) / a.block;
    spread_kernel<T, rounding, scaling>
        <<<blocks_for(a.matrices * a.rows * per_line, kThreads / 32), kThreads, 0, stream>>>(
            a, per_line);
  }
}

}  // namespace

cudaError_t launch_number_quantize(const NumberArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    numeric::with_format(a.format, [&](auto rounding, auto scaling) {
      launch<typename decltype(tag)::type, decltype(rounding)::value, decltype(scaling)::value>(
          a, stream);
    });
    return cudaGetLastError();
  });
}

}  // namespace refract
