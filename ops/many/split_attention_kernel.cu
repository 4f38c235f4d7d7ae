// Causal attention of fp32 operands on bfloat16 tensor cores: every operand is the sum of a high
// and a low part, every product three of them. A block has 64 queries of a head, a warp 16, and
// walks over the keys 64 at a time with a running maximum and sum; scores and results stay in
// registers. What leaves is split already, for the product behind it.
#include <climits>

#include "ops/device/mma.cuh"
#include "ops/device/vector.cuh"
#include "ops/many/split_attention_kernel.h"

namespace refract {
namespace {

using Bf16 = __nv_bfloat16;

constexpr int kThreads = 128, kQueries = 64, kKeys = 64;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e30f;  // finite: (lowest - lowest) is 0

struct Task {
  const float* qkv;
  Bf16* out;
  int length, heads, kv_heads;
  float scale;  // of scores in powers of two
};

__device__ __forceinline__ float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Two numbers as registers of their high and their low parts.
struct Pair {
  uint32_t high, low;
};
__device__ __forceinline__ Pair split_pair(float a, float b) {
  const float a_high = __bfloat162float(__float2bfloat16_rn(a)),
              b_high = __bfloat162float(__float2bfloat16_rn(b));
  return {mma::pack<Bf16>(a_high, b_high), mma::pack<Bf16>(a - a_high, b - b_high)};
}

struct SplitA {
  mma::A high, low;
  __device__ __forceinline__ void set(int i, float a, float b) {
    const Pair pair = split_pair(a, b);
    high.r[i] = pair.high;
    low.r[i] = pair.low;
  }
};

// c += a b without the product of the low parts, the smallest first; two tiles of 8 columns.
__device__ __forceinline__ void multiply(float (&left)[4], float (&right)[4], const SplitA& a,
                                         const mma::B2& high, const mma::B2& low) {
  mma::multiply<Bf16>(left, a.high, low.r[0], low.r[1]);
  mma::multiply<Bf16>(right, a.high, low.r[2], low.r[3]);
  mma::multiply<Bf16>(left, a.low, high.r[0], high.r[1]);
  mma::multiply<Bf16>(right, a.low, high.r[2], high.r[3]);
  mma::multiply<Bf16>(left, a.high, high.r[0], high.r[1]);
  mma::multiply<Bf16>(right, a.high, high.r[2], high.r[3]);
}

// Rows [first, first + kKeys) of a head's keys or values, split; zeros past the end.
template <int D>
__device__ __forceinline__ void bring_in(char* shared, const mma::Tile<D>& tile, const float* rows,
                                         int64_t stride, int first, int length) {
  constexpr int kQuads = D / 4;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < kKeys * kQuads; i += kThreads) {
    const int row = i / kQuads, quad = i % kQuads;
    Vec<float, 4> x{};
    if (first + row < length) x = load_vec<float, 4>(rows + (first + row) * stride + 4 * quad);
    const Pair a = split_pair(x.at[0], x.at[1]), b = split_pair(x.at[2], x.at[3]);
    char* to = shared + (tile.address(row, quad / 2) - tile.base) + quad % 2 * 8;
    *reinterpret_cast<uint2*>(to) = make_uint2(a.high, b.high);
    *reinterpret_cast<uint2*>(to + kKeys * D * 2) = make_uint2(a.low, b.low);
  }
}

// Rows g and g + 8 of a warp's 16: what is known of each.
template <int D>
struct Rows {
  float most[2] = {kLowest, kLowest}, sum[2] = {0.0f, 0.0f};  // sum: of this thread's keys
  float out[D / 8][4] = {};
};

template <int D>
__device__ __forceinline__ void read_queries(SplitA (&q)[D / 16], const Task& task,
                                             const float* rows, int64_t stride, int query, int t) {
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = query + i % 2 * 8, column = 16 * step + i / 2 * 8 + 2 * t;
      Vec<float, 2> x{};
      if (row < task.length) x = load_vec<float, 2>(rows + row * stride + column);
      q[step].set(i, x.at[0] * task.scale, x.at[1] * task.scale);
    }
  }
}

// Softmax so far: probabilities to the new maximum in place of the scores.
template <int D>
__device__ __forceinline__ void rescale(Rows<D>& rows, float (&score)[kKeys / 8][4]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float most = rows.most[r];
#pragma unroll
    for (auto& tile : score) most = fmaxf(most, fmaxf(tile[2 * r], tile[2 * r + 1]));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 1));
    most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, 2));
    const float shrink = power_of_two(rows.most[r] - most);
    rows.most[r] = most;
    float sum = 0.0f;
#pragma unroll
    for (auto& tile : score) {
#pragma unroll
      for (int i = 2 * r; i < 2 * r + 2; ++i) {
        tile[i] = power_of_two(tile[i] - most);
        sum += tile[i];
      }
    }
    rows.sum[r] = rows.sum[r] * shrink + sum;
#pragma unroll
    for (auto& tile : rows.out) {
      tile[2 * r] *= shrink;
      tile[2 * r + 1] *= shrink;
    }
  }
}

template <int D>
__device__ __forceinline__ void write(const Rows<D>& rows, const Task& task, Bf16* out, int query,
                                      int t) {
  const int64_t width = static_cast<int64_t>(task.heads) * D;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    float sum = rows.sum[r] + __shfl_xor_sync(0xffffffffu, rows.sum[r], 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
    const float share = 1.0f / sum;
    const int row = query + 8 * r;
    if (row >= task.length) continue;
    Bf16* to = out + row * 3 * width + 2 * t;
#pragma unroll
    for (int i = 0; i < D / 8; ++i) {
      const Pair pair = split_pair(rows.out[i][2 * r] * share, rows.out[i][2 * r + 1] * share);
      *reinterpret_cast<uint32_t*>(to + 8 * i) = pair.high;
      *reinterpret_cast<uint32_t*>(to + width + 8 * i) = pair.high;
      *reinterpret_cast<uint32_t*>(to + 2 * width + 8 * i) = pair.low;
    }
  }
}

template <int D>
__global__ void __launch_bounds__(kThreads) split_attention_kernel(Task task) {
  constexpr int kBytes = kKeys * D * 2;  // of one part of a tile
  __shared__ __align__(128) char shared[4 * kBytes];
  const mma::Tile<D> keys{shared_address(shared)}, keys_low{keys.base + kBytes},
      values{keys.base + 2 * kBytes}, values_low{keys.base + 3 * kBytes};
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32,
            g = lane / 4, t = lane % 4;
  const int tiles = (task.length + kQueries - 1) / kQueries;
  // The longest walks start first.
  const int tile = tiles - 1 - static_cast<int>(blockIdx.x) % tiles;
  const int64_t rest = blockIdx.x / tiles;
  const int head = static_cast<int>(rest % task.heads);
  const int64_t sequence = rest / task.heads;
  const int64_t stride = static_cast<int64_t>(task.heads + 2 * task.kv_heads) * D;
  const float* base = task.qkv + sequence * task.length * stride;
  const int kv = head / (task.heads / task.kv_heads);
  const float* k = base + static_cast<int64_t>(task.heads + kv) * D;
  const float* v = k + static_cast<int64_t>(task.kv_heads) * D;
  const int query = tile * kQueries + warp * 16 + g;
  SplitA q[D / 16];
  read_queries<D>(q, task, base + static_cast<int64_t>(head) * D, stride, query, t);
  Rows<D> rows;
  for (int first = 0; first <= tile * kQueries; first += kKeys) {
    __syncthreads();
    bring_in<D>(shared, keys, k, stride, first, task.length);
    bring_in<D>(shared + 2 * kBytes, values, v, stride, first, task.length);
    __syncthreads();
    float score[kKeys / 8][4] = {};
#pragma unroll
    for (int pair = 0; pair < kKeys / 16; ++pair) {
#pragma unroll
      for (int step = 0; step < D / 16; ++step) {
        multiply(score[2 * pair], score[2 * pair + 1], q[step],
                 mma::load_b(keys, 16 * pair, step, lane),
                 mma::load_b(keys_low, 16 * pair, step, lane));
      }
    }
    if (first == tile * kQueries) {
#pragma unroll
      for (int i = 0; i < kKeys / 8; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if (first + 8 * i + 2 * t + j % 2 > query + j / 2 * 8) score[i][j] = -INFINITY;
        }
      }
    }
    rescale<D>(rows, score);
#pragma unroll
    for (int step = 0; step < kKeys / 16; ++step) {
      SplitA p;
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&from)[4] = score[2 * step + i / 2];
        p.set(i, from[i % 2 * 2], from[i % 2 * 2 + 1]);
      }
#pragma unroll
      for (int pair = 0; pair < D / 16; ++pair) {
        multiply(rows.out[2 * pair], rows.out[2 * pair + 1], p,
                 mma::load_b_transposed(values, 16 * step, pair, lane),
                 mma::load_b_transposed(values_low, 16 * step, pair, lane));
      }
    }
  }
  Bf16* out =
      task.out + sequence * task.length * 3 * task.heads * D + static_cast<int64_t>(head) * D;
  write<D>(rows, task, out, query, t);
}

template <int D>
cudaError_t launch(const SplitAttention& a, cudaStream_t stream) {
  const int64_t blocks = a.sequences * a.heads * ((a.length + kQueries - 1) / kQueries);
  if (blocks == 0) return cudaSuccess;
  if (blocks > INT_MAX) return cudaErrorInvalidConfiguration;
  const Task task{a.qkv,
                  static_cast<Bf16*>(a.out),
                  static_cast<int>(a.length),
                  static_cast<int>(a.heads),
                  static_cast<int>(a.kv_heads),
                  static_cast<float>(a.scale) * kLog2E};
  split_attention_kernel<D><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(task);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_split_attention(const SplitAttention& args, cudaStream_t stream) {
  return args.head_dim == 32 ? launch<32>(args, stream) : launch<64>(args, stream);
}

}  // namespace refract
