// A block of 32 x 8 threads moves a tile of 64 x 64 elements through shared memory, so that both
// sides are read and written along their rows. Two-byte elements go in pairs on both sides.
#include <type_traits>

#include "ops/structured/transposed_copy_kernel.h"

namespace refract {
namespace {

constexpr int kTile = 64, kLanesX = 32, kLanesY = 8;

template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T x, y;
};

// kPairs: rows, columns and the stride are even and both pointers aligned to a pair.
template <class T, bool kPairs>
__global__ void __launch_bounds__(kLanesX* kLanesY)
    transpose_kernel(const T* in, T* out, int64_t rows, int64_t columns, int64_t stride) {
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
      tile[r][c] = pair.x;
      tile[r][c + 1] = pair.y;
    } else {
      for (int c = threadIdx.x; c < kTile && column0 + c < columns; c += kLanesX) {
        tile[r][c] = from[c];
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

template <class T>
cudaError_t launch(const void* in, void* out, int64_t rows, int64_t columns, int64_t stride,
                   cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>((columns + kTile - 1) / kTile),
                  static_cast<unsigned>((rows + kTile - 1) / kTile));
  const bool pairs =
      rows % 2 == 0 && columns % 2 == 0 && stride % 2 == 0 &&
      (reinterpret_cast<uintptr_t>(in) | reinterpret_cast<uintptr_t>(out)) % (2 * sizeof(T)) == 0;
  const auto kernel = pairs ? transpose_kernel<T, true> : transpose_kernel<T, false>;
  kernel<<<grid, dim3(kLanesX, kLanesY), 0, stream>>>(static_cast<const T*>(in),
                                                      static_cast<T*>(out), rows, columns, stride);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_transposed_copy(const void* in, void* out, int64_t rows, int64_t columns,
                                   int64_t stride, int element_size, cudaStream_t stream) {
  switch (element_size) {
    case 2:
      return launch<uint16_t>(in, out, rows, columns, stride, stream);
    case 4:
      return launch<uint32_t>(in, out, rows, columns, stride, stream);
    default:
      return launch<uint64_t>(in, out, rows, columns, stride, stream);
  }
}

}  // namespace refract
