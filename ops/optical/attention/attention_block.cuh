// The query side of optical attention's forward kernel: a block's rows and the key tiles that pass
// by, the levels of their scores, and the softmax's sums.
#pragma once
#include "ops/optical/attention/attention_tile.cuh"

namespace refract::attention {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kRows = 16 * kWarps, kKeys = 64;
constexpr int kGroup = 32;  // keys whose scores a warp holds at a time

template <int D>
struct Shared {
  __half q[kRows * D];
  __half k[2][kKeys * D];
  __half v[2][kKeys * D];
  float k_term[2][kKeys];
  Constants constants;
};

// One block's place and its tiles.
template <int D>
struct Block {
  const OpticalAttentionArgs& a;
  Shared<D>& shared;
  int batch, head, kv_head, first_row, offset, key_tiles;
  int lane, warp;

  __device__ __forceinline__ Block(const OpticalAttentionArgs& args, Shared<D>& memory)
      : a(args), shared(memory) {
    batch = static_cast<int>(blockIdx.x) / a.heads;
    head = static_cast<int>(blockIdx.x) % a.heads;
    kv_head = head / (a.heads / a.kv_heads);
    first_row = (static_cast<int>(gridDim.y - 1 - blockIdx.y)) * kRows;  // long rows first
    offset = a.keys - a.queries;
    const int last_row = min(first_row + kRows, a.queries) - 1;
    key_tiles = (last_row + offset) / kKeys + 1;
    lane = static_cast<int>(threadIdx.x) % 32;
    warp = static_cast<int>(threadIdx.x) / 32;
  }
  __device__ __forceinline__ int64_t query_row() const {
    return (static_cast<int64_t>(batch) * a.heads + head) * a.queries;
  }
  __device__ __forceinline__ int64_t key_row() const {
    return (static_cast<int64_t>(batch) * a.kv_heads + kv_head) * a.keys;
  }
  __device__ __forceinline__ mma::Tile<D> q() const { return {shared_address(shared.q)}; }
  __device__ __forceinline__ mma::Tile<D> k(int stage) const {
    return {shared_address(shared.k[stage])};
  }
  __device__ __forceinline__ mma::Tile<D> v(int stage) const {
    return {shared_address(shared.v[stage])};
  }
  // This thread's two rows, neighbours; the first is even.
  __device__ __forceinline__ int row() const { return first_row + 16 * warp + 2 * (lane / 4); }

  __device__ __forceinline__ void start_keys(int tile, bool with_values) const {
    const int stage = tile & 1, first = tile * kKeys;
    const __half* codes = static_cast<const __half*>(a.k_code) + key_row() * D;
    mma::copy_tile<kKeys, D, kThreads>(k(stage), codes, D, first, a.keys);
    if (with_values) {
      const __half* values = static_cast<const __half*>(a.v_code) + key_row() * D;
      mma::copy_tile<kKeys, D, kThreads>(v(stage), values, D, first, a.keys);
    }
    mma::commit_copies();
    if (threadIdx.x < kKeys) {
      const int key = first + static_cast<int>(threadIdx.x);
      shared.k_term[stage][threadIdx.x] = key < a.keys ? a.k_term[key_row() + key] : 0.0f;
    }
  }
  // Calls body(tile, stage) for every key tile, copying the next one meanwhile.
  template <class F>
  __device__ __forceinline__ void over_keys(bool with_values, F&& body) const {
    start_keys(0, with_values);
    for (int tile = 0; tile < key_tiles; ++tile) {
      if (tile + 1 < key_tiles) {
        start_keys(tile + 1, with_values);
        mma::wait_copies<1>();
      } else {
        mma::wait_copies<0>();
      }
      __syncthreads();
      body(tile, tile & 1);
      __syncthreads();
    }
  }
};

// The 16 rows of q that a warp multiplies, in registers where they fit.
template <int D>
struct QueryRows {
  static constexpr bool kKept = D <= 64;
  mma::A kept[kKept ? D / 16 : 1];
  __device__ __forceinline__ explicit QueryRows(const Block<D>& b) {
    if constexpr (kKept) {
#pragma unroll
      for (int s = 0; s < D / 16; ++s) kept[s] = mma::load_a_paired(b.q(), 16 * b.warp, s, b.lane);
    }
  }
  __device__ __forceinline__ mma::A at(const Block<D>& b, int step) const {
    if constexpr (kKept) {
      return kept[step];
    } else {
      return mma::load_a_paired(b.q(), 16 * b.warp, step, b.lane);
    }
  }
};

// positions[n][c]: this thread's positions of the scores of 8 keys (n) each, of keys [key, key +
// kGroup) of a tile; row_add holds what belongs to its two rows.
template <int D>
__device__ __forceinline__ void score_positions(const Block<D>& b, const QueryRows<D>& q, int stage,
                                                int key, const ScoreLevels& s,
                                                const float (&row_add)[2],
                                                float (&positions)[kGroup / 8][4]) {
#pragma unroll
  for (auto& c : positions) c[0] = c[1] = c[2] = c[3] = 0.0f;
  const mma::Tile<D> keys = b.k(stage);
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    const mma::A rows = q.at(b, step);
#pragma unroll
    for (int n = 0; n < kGroup / 8; n += 2) {
      const mma::B2 columns = mma::load_b(keys, key + 8 * n, step, b.lane);
      mma::multiply<__half>(positions[n], rows, columns.r[0], columns.r[1]);
      mma::multiply<__half>(positions[n + 1], rows, columns.r[2], columns.r[3]);
    }
  }
#pragma unroll
  for (int n = 0; n < kGroup / 8; ++n) {
    const float2 term =
        *reinterpret_cast<const float2*>(&b.shared.k_term[stage][key + 8 * n + 2 * (b.lane % 4)]);
    const float column[2] = {term.x * s.per_x, term.y * s.per_x};
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      positions[n][c] = fmaf(positions[n][c], s.unit, row_add[c / 2] + column[c % 2]);
    }
  }
}

// Replaces positions by their noisy levels; the group's first key is a multiple of 16.
__device__ __forceinline__ void draw_levels(const OpticalAttentionArgs& a, const ScoreLevels& s,
                                            const ScoreNoise& noise, const NoiseRow& row,
                                            int first_key, int lane, float (&x)[kGroup / 8][4]) {
#pragma unroll
  for (int n = 0; n < kGroup / 8; n += 2) {
    const PhiloxBlock block =
        noise.draw(a, row, static_cast<uint32_t>((first_key + 8 * n) / 4 + lane % 4));
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      x[n][c] = noisy_level(s, x[n][c], low_noise(a, block.word[c]));
      x[n + 1][c] = noisy_level(s, x[n + 1][c], high_noise(a, block.word[c]));
    }
  }
}

// Whether element c of the fragment of the 8 keys from `key` is seen by its row.
__device__ __forceinline__ bool visible(int row, int key, int lane, int offset, int c) {
  return key + 2 * (lane % 4) + c % 2 <= row + c / 2 + offset;
}

// Maximum level and sum of exp2((level - maximum) * log2) of a thread's two rows over its columns.
struct RowSums {
  float most[2] = {0.0f, 0.0f};  // no level is below 0
  float sum[2] = {0.0f, 0.0f};

  template <bool kMasked, int N>
  __device__ __forceinline__ void include(const float (&levels)[N][4], float log2, int row, int key,
                                          int lane, int offset) {
    float now[2] = {most[0], most[1]};
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (!kMasked || visible(row, key + 8 * n, lane, offset, c)) {
          now[c / 2] = fmaxf(now[c / 2], levels[n][c]);
        }
      }
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] *= exp2_approximate((most[r] - now[r]) * log2);
      most[r] = now[r];
    }
    const float shift[2] = {-now[0] * log2, -now[1] * log2};
#pragma unroll
    for (int n = 0; n < N; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        if (!kMasked || visible(row, key + 8 * n, lane, offset, c)) {
          sum[c / 2] += exp2_approximate(fmaf(levels[n][c], log2, shift[c / 2]));
        }
      }
    }
  }
  // Over the four threads that share the rows: the number to add to level * log2 for log2 of the
  // probability.
  __device__ __forceinline__ float normalizer(int r, float log2) const {
    float m = most[r];
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 1));
    m = fmaxf(m, __shfl_xor_sync(0xffffffffu, m, 2));
    float s = sum[r] * exp2_approximate((most[r] - m) * log2);
    s += __shfl_xor_sync(0xffffffffu, s, 1);
    s += __shfl_xor_sync(0xffffffffu, s, 2);
    return -m * log2 - log2f(s);
  }
};

template <bool kMasked>
__device__ __forceinline__ void include_positions(const float (&positions)[kGroup / 8][4], int row,
                                                  int key, int lane, int offset, int rows,
                                                  optical::Range& range) {
#pragma unroll
  for (int n = 0; n < kGroup / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      if (!kMasked || (visible(row, key + 8 * n, lane, offset, c) && row + c / 2 < rows)) {
        range.lo = fminf(range.lo, positions[n][c]);
        range.hi = fmaxf(range.hi, positions[n][c]);
      }
    }
  }
}

}  // namespace refract::attention
