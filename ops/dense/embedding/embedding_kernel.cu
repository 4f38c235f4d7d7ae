// Forward and the positions' gradient: one thread per vector of 16 bytes (or per element where rows
// are not whole vectors). The tokens' gradient walks the sorted list of tokens in tiles of
// kEmbedTile positions: a run of equal tokens that lies inside one tile is summed and written at
// once; a run that crosses tiles leaves one partial row per tile, and the second kernel adds those
// in the order of the tiles. So no sum depends on timing, and a token that makes up the whole batch
// is still spread over all tiles.
#include <climits>
#include <cmath>

#include "ops/dense/embedding/embedding_kernel.h"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kThreads = 256;
constexpr int kRunThreads = 128;

__device__ __forceinline__ int64_t token_at(const void* tokens, bool wide, int64_t i) {
  return wide ? static_cast<const int64_t*>(tokens)[i] : static_cast<const int32_t*>(tokens)[i];
}

// N elements of a row as floats.
template <class T, int N>
struct Floats {
  float at[N];
  __device__ __forceinline__ void set(float x) {
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] = x;
  }
  __device__ __forceinline__ void add(const Vec<T, N>& v) {
#pragma unroll
    for (int k = 0; k < N; ++k) at[k] += to_float(v.at[k]);
  }
  __device__ __forceinline__ Vec<T, N> rounded() const {
    Vec<T, N> v;
#pragma unroll
    for (int k = 0; k < N; ++k) v.at[k] = from_float<T>(at[k]);
    return v;
  }
};

// Grid x runs over positions * vectors of a row.
template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embed_kernel(const void* tokens, bool wide, const T* __restrict__ wte, int64_t rows,
                 const T* __restrict__ wpe, int64_t positions, int64_t length, int vectors,
                 T* __restrict__ out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t position = i / vectors;
  if (position >= positions) return;
  const int column = static_cast<int>(i - position * vectors) * N;
  const int64_t width = static_cast<int64_t>(vectors) * N;
  const int64_t token = token_at(tokens, wide, position);
  Floats<T, N> sum;
  if (token < 0 || token >= rows) {
    sum.set(NAN);
  } else {
    sum.set(0.0f);
    sum.add(load_vec<T, N>(wte + token * width + column));
    if (wpe != nullptr) sum.add(load_vec<T, N>(wpe + position % length * width + column));
  }
  store_vec(out + position * width + column, sum.rounded());
}

// Grid (tiles, column slices); a thread owns N columns and walks the tile's positions.
template <class T, int N>
__global__ void __launch_bounds__(kRunThreads)
    embed_runs_kernel(const void* sorted, bool wide, const int64_t* __restrict__ order, int64_t n,
                      const T* __restrict__ grad, int64_t rows, int vectors,
                      float* __restrict__ scratch, T* __restrict__ out) {
  __shared__ int64_t token[kEmbedTile + 2];  // with the neighbours of the tile; -1 beyond the list
  __shared__ int64_t from[kEmbedTile];
  const int64_t tile = blockIdx.x, begin = tile * kEmbedTile;
  const int count = static_cast<int>(min(static_cast<int64_t>(kEmbedTile), n - begin));
  for (int k = threadIdx.x; k < count + 2; k += kRunThreads) {
    const int64_t i = begin + k - 1;
    token[k] = i >= 0 && i < n ? token_at(sorted, wide, i) : -1;
    if (k < count) from[k] = order[begin + k];
  }
  __syncthreads();
  const int vector = blockIdx.y * kRunThreads + threadIdx.x;
  if (vector >= vectors) return;
  const int column = vector * N;
  const int64_t width = static_cast<int64_t>(vectors) * N;
  Floats<T, N> sum;
  sum.set(0.0f);
  bool opens = token[0] == token[1];  // the run began in an earlier tile
#pragma unroll 4
  for (int k = 0; k < count; ++k) {
    sum.add(load_vec<T, N>(grad + from[k] * width + column));
    const int64_t mine = token[k + 1];
    const bool last = k + 1 == count;
    if (!last && token[k + 2] == mine) continue;
    const bool crosses = last && token[k + 2] == mine;
    if (opens || crosses) {
      // Row 0 of the tile: the run that came from before; row 1: one that starts here.
      float* to = scratch + (tile * 2 + (opens ? 0 : 1)) * width + column;
#pragma unroll
      for (int j = 0; j < N; ++j) to[j] = sum.at[j];
    } else if (mine >= 0 && mine < rows) {
      store_vec(out + mine * width + column, sum.rounded());
    }
    sum.set(0.0f);
    opens = false;
  }
}

// Grid (tiles, column slices): the tile in which a crossing run starts adds up the whole run.
template <class T, int N>
__global__ void __launch_bounds__(kRunThreads)
    embed_merge_kernel(const void* sorted, bool wide, int64_t n, int64_t rows, int vectors,
                       const float* __restrict__ scratch, T* __restrict__ out) {
  const int64_t tile = blockIdx.x, begin = tile * kEmbedTile, end = begin + kEmbedTile;
  if (end >= n) return;  // nothing can cross from the last tile
  const int64_t mine = token_at(sorted, wide, end - 1);
  if (token_at(sorted, wide, end) != mine || mine < 0 || mine >= rows) return;
  // It starts here unless it came through the whole tile from before.
  if (begin > 0 && token_at(sorted, wide, begin - 1) == mine) return;
  const int vector = blockIdx.y * kRunThreads + threadIdx.x;
  if (vector >= vectors) return;
  const int column = vector * N;
  const int64_t width = static_cast<int64_t>(vectors) * N;
  Floats<T, N> sum;
  const float* first = scratch + (tile * 2 + 1) * width + column;
#pragma unroll
  for (int j = 0; j < N; ++j) sum.at[j] = first[j];
  for (int64_t next = tile + 1; next * kEmbedTile < n; ++next) {
    if (token_at(sorted, wide, next * kEmbedTile) != mine) break;
    const float* part = scratch + next * 2 * width + column;
#pragma unroll
    for (int j = 0; j < N; ++j) sum.at[j] += part[j];
  }
  store_vec(out + mine * width + column, sum.rounded());
}

template <class T, int N>
__global__ void __launch_bounds__(kThreads)
    embed_positions_kernel(const T* __restrict__ grad, int64_t batch, int64_t length, int vectors,
                           int64_t positions, int64_t offset, T* __restrict__ out) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t position = i / vectors;
  if (position >= positions) return;
  const int column = static_cast<int>(i - position * vectors) * N;
  const int64_t width = static_cast<int64_t>(vectors) * N;
  Floats<T, N> sum;
  sum.set(0.0f);
  const int64_t t = position - offset;
  if (t >= 0 && t < length) {
#pragma unroll 8
    for (int64_t b = 0; b < batch; ++b) {
      sum.add(load_vec<T, N>(grad + (b * length + t) * width + column));
    }
  }
  store_vec(out + position * width + column, sum.rounded());
}

// Calls f(CudaTag<T>, std::integral_constant N) with vectors of 16 bytes where rows are whole ones.
template <int N>
struct Width {
  static constexpr int value = N;
};
template <class F>
cudaError_t with_vectors(Dtype dtype, int64_t width, bool aligned, F&& f) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (aligned && width % kVec<T> == 0) return f(tag, Width<kVec<T>>{});
    return f(tag, Width<1>{});
  });
}

bool fits_grid(int64_t blocks) { return blocks <= INT_MAX; }

}  // namespace

cudaError_t launch_embed(Dtype dtype, const void* tokens, bool wide_tokens, const void* wte,
                         int64_t rows, const void* wpe, int64_t positions, int64_t length,
                         int64_t width, void* out, cudaStream_t stream) {
  if (positions == 0 || width == 0) return cudaSuccess;
  const bool aligned = aligned16(static_cast<const char*>(wte), static_cast<const char*>(wpe),
                                 static_cast<const char*>(out));
  return with_vectors(dtype, width, aligned, [&](auto tag, auto n) {
    using T = typename decltype(tag)::type;
    constexpr int N = decltype(n)::value;
    const int vectors = static_cast<int>(width / N);
    const int64_t blocks = (positions * vectors + kThreads - 1) / kThreads;
    if (!fits_grid(blocks)) return cudaErrorInvalidValue;
    embed_kernel<T, N><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
        tokens, wide_tokens, static_cast<const T*>(wte), rows, static_cast<const T*>(wpe),
        positions, length, vectors, static_cast<T*>(out));
    return cudaGetLastError();
  });
}

cudaError_t launch_embed_backward(Dtype dtype, const void* sorted, bool wide_tokens,
                                  const int64_t* order, int64_t n, const void* grad, int64_t rows,
                                  int64_t width, float* scratch, void* out, cudaStream_t stream) {
  if (n == 0 || width == 0) return cudaSuccess;
  const bool aligned =
      aligned16(static_cast<const char*>(grad), static_cast<const char*>(out), scratch);
  return with_vectors(dtype, width, aligned, [&](auto tag, auto wide) {
    using T = typename decltype(tag)::type;
    constexpr int N = decltype(wide)::value;
    const int vectors = static_cast<int>(width / N);
    const int64_t tiles = (n + kEmbedTile - 1) / kEmbedTile;
    if (!fits_grid(tiles)) return cudaErrorInvalidValue;
    const dim3 grid(static_cast<unsigned>(tiles), (vectors + kRunThreads - 1) / kRunThreads);
    embed_runs_kernel<T, N><<<grid, kRunThreads, 0, stream>>>(
        sorted, wide_tokens, order, n, static_cast<const T*>(grad), rows, vectors, scratch,
        static_cast<T*>(out));
    if (auto error = cudaGetLastError()) return error;
    embed_merge_kernel<T, N><<<grid, kRunThreads, 0, stream>>>(
        sorted, wide_tokens, n, rows, vectors, scratch, static_cast<T*>(out));
    return cudaGetLastError();
  });
}

cudaError_t launch_embed_positions_backward(Dtype dtype, const void* grad, int64_t batch,
                                            int64_t length, int64_t width, int64_t positions,
                                            int64_t offset, void* out, cudaStream_t stream) {
  if (positions == 0 || width == 0) return cudaSuccess;
  const bool aligned = aligned16(static_cast<const char*>(grad), static_cast<const char*>(out));
  return with_vectors(dtype, width, aligned, [&](auto tag, auto n) {
    using T = typename decltype(tag)::type;
    constexpr int N = decltype(n)::value;
    const int vectors = static_cast<int>(width / N);
    const int64_t blocks = (positions * vectors + kThreads - 1) / kThreads;
    if (!fits_grid(blocks)) return cudaErrorInvalidValue;
    embed_positions_kernel<T, N><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(
        static_cast<const T*>(grad), batch, length, vectors, positions, offset,
        static_cast<T*>(out));
    return cudaGetLastError();
  });
}

}  // namespace refract
