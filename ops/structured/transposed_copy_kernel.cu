// A block of 32 x 8 threads moves a tile of 64 x 64 elements through shared memory, so that both
// sides are read and written along their rows. Two-byte elements go in pairs on both sides.
#include "ops/device/vector.cuh"
#include "ops/structured/transposed_copy_kernel.h"

namespace refract {
namespace {

constexpr int kTile = 64, kLanesX = 32, kLanesY = 8;

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};

// What happens to an element on the way.
struct Keep {
  template <class T>
  __device__ __forceinline__ T operator()(T x, int64_t) const {
    return x;
  }
};

template <class T>
struct AddRowBias {
  const T* bias;
  __device__ __forceinline__ T operator()(T x, int64_t row) const {
    return from_float<T>(to_float(x) + to_float(bias[row]));
  }
};

// kPairs: rows, columns and the stride are even and both pointers aligned to a pair.
template <class T, bool kPairs, class Change>
__global__ void __launch_bounds__(kLanesX* kLanesY)
    transpose_kernel(const T* in, T* out, int64_t rows, int64_t columns, int64_t stride,
                     Change change) {
  // An odd number of 4-byte words per row keeps a column of the tile in different banks.
  __shared__ T tile[kTile][kTile + (sizeof(T) == 2 ? 2 : 1)];
  const int64_t row0 = static_cast<int64_t>(blockIdx.y) * kTile;
  const int64_t column0 = static_cast<int64_t>(blockIdx.x) * kTile;
  for (int r = threadIdx.y; r < kTile; r += kLanesY) {
    const T* from = in + (row0 + r) * stride + column0;
    if (row0 + r >= rows) break;
    if constexpr (kPairs) {
      const int c = 2 * threadIdx.x;
      if (column0 + c >= columns) continue;
      const Pair<T> pair = *reinterpret_cast<const Pair<T>*>(from + c);
      tile[r][c] = change(pair.x, row0 + r);
      tile[r][c + 1] = change(pair.y, row0 + r);
    } else {
      for (int c = threadIdx.x; c < kTile && column0 + c < columns; c += kLanesX) {
        tile[r][c] = change(from[c], row0 + r);
      }
    }
  }
  __syncthreads();
  for (int c = threadIdx.y; c < kTile; c += kLanesY) {
    T* to = out + (column0 + c) * rows + row0;
    if (column0 + c >= columns) break;
    if constexpr (kPairs) {
      const int r = 2 * threadIdx.x;
      if (row0 + r >= rows) continue;
      *reinterpret_cast<Pair<T>*>(to + r) = Pair<T>{tile[r][c], tile[r + 1][c]};
    } else {
      for (int r = threadIdx.x; r < kTile && row0 + r < rows; r += kLanesX) to[r] = tile[r][c];
    }
  }
}

template <class T, class Change>
cudaError_t launch(const void* in, void* out, int64_t rows, int64_t columns, int64_t stride,
                   Change change, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((columns + kTile - 1) / kTile),
                  static_cast<unsigned>((rows + kTile - 1) / kTile));
  const bool pairs =
      rows % 2 == 0 && columns % 2 == 0 && stride % 2 == 0 &&
      (reinterpret_cast<uintptr_t>(in) | reinterpret_cast<uintptr_t>(out)) % (2 * sizeof(T)) == 0;
  const auto kernel =
      pairs ? transpose_kernel<T, true, Change> : transpose_kernel<T, false, Change>;
  kernel<<<grid, dim3(kLanesX, kLanesY), 0, stream>>>(
      static_cast<const T*>(in), static_cast<T*>(out), rows, columns, stride, change);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_transposed_copy(const void* in, void* out, int64_t rows, int64_t columns,
                                   int64_t stride, int element_size, cudaStream_t stream) {
  switch (element_size) {
    case 2:
      return launch<uint16_t>(in, out, rows, columns, stride, Keep{}, stream);
    case 4:
      return launch<uint32_t>(in, out, rows, columns, stride, Keep{}, stream);
    default:
      return launch<uint64_t>(in, out, rows, columns, stride, Keep{}, stream);
  }
}

cudaError_t launch_transposed_add(const void* in, const void* bias, void* out, int64_t rows,
                                  int64_t columns, int64_t stride, Dtype dtype,
                                  cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return launch<T>(in, out, rows, columns, stride, AddRowBias<T>{static_cast<const T*>(bias)},
                     stream);
  });
}

}  // namespace refract
