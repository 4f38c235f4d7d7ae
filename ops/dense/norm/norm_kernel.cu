// One pass over the rows. A row of up to 1024 columns belongs to a warp, one of up to 8192 to a
// block of 256 threads; it stays in registers between the statistics and the result. Other rows
// (longer, or not a multiple of 16 bytes) are looped over and read again from the cache.
#include <type_traits>

#include "ops/dense/norm/norm_kernel.h"
#include "ops/device/column_sum.cuh"
#include "ops/device/reduce.cuh"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kWarpThreads = 128;   // threads of a block whose warps have a row each
constexpr int kBlockThreads = 256;  // threads of a block that has one row
constexpr int64_t kWarpColumns = 1024;
constexpr int64_t kBlockColumns = 8192;

// kPerRow threads share a row; thread `lane` of them holds vectors lane, lane + kPerRow, ...
template <int kPerRow>
constexpr int kThreads = kPerRow == 32 ? kWarpThreads : kBlockThreads;

template <int kPerRow>
__device__ __forceinline__ float row_sum(float x, float* scratch) {
  return kPerRow == 32 ? warp_sum(x) : block_sum<kBlockThreads>(x, scratch);
}

template <class T, int kPerRow, int kVecs>
__global__ void __launch_bounds__(kThreads<kPerRow>) forward_kernel(NormForward a) {
  constexpr int N = kVec<T>;
  __shared__ float scratch[32];
  const int lane = threadIdx.x % kPerRow;
  const int64_t row =
      static_cast<int64_t>(blockIdx.x) * (kThreads<kPerRow> / kPerRow) + threadIdx.x / kPerRow;
  if (row >= a.rows) return;  // whole warps only; a block with one row never
  const int vectors = static_cast<int>(a.columns) / N;
  const int64_t base = row * a.columns;
  const T* x = static_cast<const T*>(a.x) + base;
  const T* residual = static_cast<const T*>(a.residual) + base;
  T* y = static_cast<T*>(a.y) + base;
  T* sum = static_cast<T*>(a.sum) + base;
  Vec<T, N> s[kVecs];
  float total = 0.0f;
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + i * kPerRow;
    if (v < vectors) s[i] = load_vec(x + v * N);
  }
  if (a.residual != nullptr) {
    Vec<T, N> r[kVecs];
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kPerRow;
      if (v < vectors) r[i] = load_vec(residual + v * N);
    }
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kPerRow;
      if (v < vectors) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          s[i].at[j] = from_float<T>(to_float(s[i].at[j]) + to_float(r[i].at[j]));
        }
        store_vec(sum + v * N, s[i]);
      }
    }
  }
  float mean = 0.0f;
  if (!a.rms) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (lane + i * kPerRow < vectors) {
#pragma unroll
        for (int j = 0; j < N; ++j) total += to_float(s[i].at[j]);
      }
    }
    mean = row_sum<kPerRow>(total, scratch) / static_cast<float>(a.columns);
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    if (lane + i * kPerRow < vectors) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const float d = to_float(s[i].at[j]) - mean;
        squares += d * d;
      }
    }
  }
  const float rstd =
      1.0f / sqrtf(row_sum<kPerRow>(squares, scratch) / static_cast<float>(a.columns) + a.eps);
  if (lane == 0) {
    if (!a.rms) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + i * kPerRow;
    if (v < vectors) {
      const Vec<T, N> w = load_vec(static_cast<const T*>(a.weight) + v * N);
      Vec<T, N> out;
      if (a.rms) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          out.at[j] = from_float<T>(to_float(from_float<T>(to_float(s[i].at[j]) * rstd)) *
                                    to_float(w.at[j]));
        }
      } else {
        Vec<T, N> b;
#pragma unroll
        for (int j = 0; j < N; ++j) b.at[j] = from_float<T>(0.0f);
        if (a.bias != nullptr) b = load_vec(static_cast<const T*>(a.bias) + v * N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          out.at[j] = from_float<T>((to_float(s[i].at[j]) - mean) * rstd * to_float(w.at[j]) +
                                    to_float(b.at[j]));
        }
      }
      store_vec(y + v * N, out);
    }
  }
}

// Any number of columns; a block of 256 has one row.
template <class T>
__global__ void __launch_bounds__(kBlockThreads) forward_loop_kernel(NormForward a) {
  __shared__ float scratch[32];
  const int64_t row = blockIdx.x, n = a.columns, base = row * n;
  const T* s = static_cast<const T*>(a.x) + base;
  const T* weight = static_cast<const T*>(a.weight);
  const T* bias = static_cast<const T*>(a.bias);
  T* y = static_cast<T*>(a.y) + base;
  if (a.residual != nullptr) {
    const T* residual = static_cast<const T*>(a.residual) + base;
    T* sum = static_cast<T*>(a.sum) + base;
    for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) {
      sum[i] = from_float<T>(to_float(s[i]) + to_float(residual[i]));
    }
    s = sum;  // each thread reads only what it wrote
  }
  float mean = 0.0f;
  if (!a.rms) {
    float total = 0.0f;
    for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) total += to_float(s[i]);
    mean = block_sum<kBlockThreads>(total, scratch) / static_cast<float>(n);
  }
  float squares = 0.0f;
  for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) {
    const float d = to_float(s[i]) - mean;
    squares += d * d;
  }
  const float rstd =
      1.0f / sqrtf(block_sum<kBlockThreads>(squares, scratch) / static_cast<float>(n) + a.eps);
  if (threadIdx.x == 0) {
    if (!a.rms) a.mean[row] = mean;
    a.rstd[row] = rstd;
  }
  for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) {
    const float w = to_float(weight[i]);
    if (a.rms) {
      y[i] = from_float<T>(to_float(from_float<T>(to_float(s[i]) * rstd)) * w);
    } else {
      const float b = bias != nullptr ? to_float(bias[i]) : 0.0f;
      y[i] = from_float<T>((to_float(s[i]) - mean) * rstd * w + b);
    }
  }
}

// A persistent block goes through rows blockIdx.x, + gridDim.x, ...; every thread keeps the sums of
// its own columns for grad_weight and grad_bias.
template <class T, int kPerRow, int kVecs>
__global__ void __launch_bounds__(kThreads<kPerRow>) backward_kernel(NormBackward a) {
  constexpr int N = kVec<T>;
  constexpr int kRows = kThreads<kPerRow> / kPerRow;
  __shared__ float scratch[32];
  const int lane = threadIdx.x % kPerRow;
  const int vectors = static_cast<int>(a.columns) / N;
  const float inverse = 1.0f / static_cast<float>(a.columns);
  const bool layer = a.mean != nullptr;
  Vec<T, N> w[kVecs];
  float dw[kVecs][N], db[kVecs][N];
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + i * kPerRow;
    if (v < vectors) w[i] = load_vec(static_cast<const T*>(a.weight) + v * N);
#pragma unroll
    for (int j = 0; j < N; ++j) dw[i][j] = db[i][j] = 0.0f;
  }
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * kRows + threadIdx.x / kPerRow; row < a.rows;
       row += static_cast<int64_t>(gridDim.x) * kRows) {
    const int64_t base = row * a.columns;
    Vec<T, N> gy[kVecs], s[kVecs], gs[kVecs];
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kPerRow;
      if (v < vectors) {
        gy[i] = load_vec(static_cast<const T*>(a.grad_y) + base + v * N);
        s[i] = load_vec(static_cast<const T*>(a.sum) + base + v * N);
        if (a.grad_sum != nullptr) {
          gs[i] = load_vec(static_cast<const T*>(a.grad_sum) + base + v * N);
        }
      }
    }
    const float mean = layer ? a.mean[row] : 0.0f, rstd = a.rstd[row];
    float projection = 0.0f, total = 0.0f;
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      if (lane + i * kPerRow < vectors) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float y = to_float(gy[i].at[j]);
          const float g = y * to_float(w[i].at[j]);
          const float normed = (to_float(s[i].at[j]) - mean) * rstd;
          projection += g * normed;
          total += g;
          dw[i][j] += y * normed;
          db[i][j] += y;
        }
      }
    }
    projection = row_sum<kPerRow>(projection, scratch) * inverse;
    total = layer ? row_sum<kPerRow>(total, scratch) * inverse : 0.0f;
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kPerRow;
      if (v < vectors) {
        Vec<T, N> out;
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const float g = to_float(gy[i].at[j]) * to_float(w[i].at[j]);
          const float normed = (to_float(s[i].at[j]) - mean) * rstd;
          float gx = (g - total - normed * projection) * rstd;
          if (a.grad_sum != nullptr) gx += to_float(gs[i].at[j]);
          out.at[j] = from_float<T>(gx);
        }
        store_vec(static_cast<T*>(a.grad_x) + base + v * N, out);
      }
    }
  }
  float* out_w = a.partial + static_cast<int64_t>(blockIdx.x) * a.columns;
  float* out_b = out_w + static_cast<int64_t>(a.parts) * a.columns;
  if constexpr (kRows == 1) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + i * kPerRow;
      if (v < vectors) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          out_w[v * N + j] = dw[i][j];
          out_b[v * N + j] = db[i][j];
        }
      }
    }
  } else {
    // The warps add theirs one after the other, so the order is fixed.
    __shared__ float sum_w[kWarpColumns], sum_b[kWarpColumns];
    for (int turn = 0; turn < kRows; ++turn) {
      if (threadIdx.x / kPerRow == turn) {
#pragma unroll
        for (int i = 0; i < kVecs; ++i) {
          const int v = lane + i * kPerRow;
          if (v < vectors) {
#pragma unroll
            for (int j = 0; j < N; ++j) {
              const int c = v * N + j;
              sum_w[c] = turn == 0 ? dw[i][j] : sum_w[c] + dw[i][j];
              sum_b[c] = turn == 0 ? db[i][j] : sum_b[c] + db[i][j];
            }
          }
        }
      }
      __syncthreads();
    }
    for (int c = threadIdx.x; c < a.columns; c += kThreads<kPerRow>) {
      out_w[c] = sum_w[c];
      out_b[c] = sum_b[c];
    }
  }
}

// Any number of columns; a thread adds to its own columns of the block's partial sums in memory.
template <class T>
__global__ void __launch_bounds__(kBlockThreads) backward_loop_kernel(NormBackward a) {
  __shared__ float scratch[32];
  const int64_t n = a.columns;
  const bool layer = a.mean != nullptr;
  const T* weight = static_cast<const T*>(a.weight);
  float* out_w = a.partial + blockIdx.x * n;
  float* out_b = out_w + a.parts * n;
  for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) out_w[i] = out_b[i] = 0.0f;
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const T* gy = static_cast<const T*>(a.grad_y) + row * n;
    const T* s = static_cast<const T*>(a.sum) + row * n;
    T* gx = static_cast<T*>(a.grad_x) + row * n;
    const float mean = layer ? a.mean[row] : 0.0f, rstd = a.rstd[row];
    float projection = 0.0f, total = 0.0f;
    for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) {
      const float y = to_float(gy[i]), g = y * to_float(weight[i]);
      const float normed = (to_float(s[i]) - mean) * rstd;
      projection += g * normed;
      total += g;
      out_w[i] += y * normed;
      out_b[i] += y;
    }
    projection = block_sum<kBlockThreads>(projection, scratch) / static_cast<float>(n);
    total = layer ? block_sum<kBlockThreads>(total, scratch) / static_cast<float>(n) : 0.0f;
    for (int64_t i = threadIdx.x; i < n; i += kBlockThreads) {
      const float g = to_float(gy[i]) * to_float(weight[i]);
      float out = (g - total - (to_float(s[i]) - mean) * rstd * projection) * rstd;
      if (a.grad_sum != nullptr) out += to_float(static_cast<const T*>(a.grad_sum)[row * n + i]);
      gx[i] = from_float<T>(out);
    }
  }
}

template <int V>
using Count = std::integral_constant<int, V>;

// Calls f(threads per row, vectors per thread) as constants for rows that fit registers: at most 32
// elements a thread.
template <class T, class F>
void dispatch_width(int64_t columns, F&& f) {
  constexpr int N = kVec<T>;
  const bool warp = columns <= kWarpColumns;
  const int64_t per_pass = N * (warp ? 32 : kBlockThreads);
  const int vecs = static_cast<int>((columns + per_pass - 1) / per_pass);
  auto with_threads = [&](auto threads) {
    if (vecs <= 1) {
      f(threads, Count<1>{});
    } else if (vecs <= 2) {
      f(threads, Count<2>{});
    } else if (vecs <= 3) {
      f(threads, Count<3>{});
    } else if (vecs <= 4) {
      f(threads, Count<4>{});
    } else if constexpr (N == 4) {
      if (vecs <= 6) {
        f(threads, Count<6>{});
      } else {
        f(threads, Count<8>{});
      }
    }
  };
  if (warp) {
    with_threads(Count<32>{});
  } else {
    with_threads(Count<kBlockThreads>{});
  }
}

template <class T>
bool fits(int64_t columns, bool aligned) {
  return aligned && columns % kVec<T> == 0 && columns <= kBlockColumns;
}

}  // namespace

cudaError_t launch_norm_forward(const NormForward& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (fits<T>(a.columns, aligned16(a.x, a.residual, a.weight, a.bias, a.y, a.sum))) {
      dispatch_width<T>(a.columns, [&](auto threads, auto vecs) {
        constexpr int kPerRow = decltype(threads)::value;
        constexpr int kRows = kThreads<kPerRow> / kPerRow;
        const auto grid = static_cast<unsigned>((a.rows + kRows - 1) / kRows);
        forward_kernel<T, kPerRow, decltype(vecs)::value>
            <<<grid, kThreads<kPerRow>, 0, stream>>>(a);
      });
    } else {
      forward_loop_kernel<T><<<static_cast<unsigned>(a.rows), kBlockThreads, 0, stream>>>(a);
    }
    return cudaGetLastError();
  });
}

int norm_backward_parts(int64_t rows, int64_t columns, Dtype, int multiprocessors) {
  const int64_t rows_per_block = columns <= kWarpColumns ? kWarpThreads / 32 : 1;
  const int64_t most = multiprocessors * (columns <= kWarpColumns ? 4 : 2);
  const int64_t blocks = (rows + rows_per_block - 1) / rows_per_block;
  return static_cast<int>(blocks < most ? blocks : most);
}

cudaError_t launch_norm_backward(const NormBackward& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (fits<T>(a.columns, aligned16(a.grad_y, a.grad_sum, a.sum, a.weight, a.grad_x))) {
      dispatch_width<T>(a.columns, [&](auto threads, auto vecs) {
        constexpr int kPerRow = decltype(threads)::value;
        backward_kernel<T, kPerRow, decltype(vecs)::value>
            <<<a.parts, kThreads<kPerRow>, 0, stream>>>(a);
      });
    } else {
      backward_loop_kernel<T><<<a.parts, kBlockThreads, 0, stream>>>(a);
    }
    if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
    return launch_column_sum(a.partial, static_cast<T*>(a.grad_weight),
                             static_cast<T*>(a.grad_bias), a.grad_bias != nullptr ? 2 : 1, a.parts,
                             a.columns, stream);
  });
}

}  // namespace refract
