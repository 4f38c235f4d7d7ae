// Optical attention, backward: the gradient of softmax attention over the unquantized q, k, v at
// the probabilities that the forward pass computed, which are computed again from the codes, the
// redrawn noise and the saved normalizers.
//   A = exp2(level * log2 + normalizer), dA = dO V^T, delta = sum_j A dA,
//   dQ = scale A (dA - delta) K, dK = scale (A (dA - delta))^T Q, dV = A^T dO.
// One kernel per row block finds delta and dQ in one pass over the keys: with the guess
// delta' = dO . out (out is A V up to its quantization) it sums A (dA - delta') K and A K and
// corrects by what sum_j A (dA - delta') leaves. A second kernel has a block of keys and runs over
// the queries that see them, of every head that shares the keys, so no sum depends on timing.
#include "ops/device/vector.cuh"
#include "ops/optical/attention/attention_tile.cuh"

namespace refract::attention {
namespace {

constexpr int kWarps = 4, kThreads = 32 * kWarps, kOwn = 16 * kWarps;  // a block's rows
constexpr int kGroup = 16;  // columns whose scores a warp holds at a time

template <int D>
constexpr int kTile = D <= 64 ? 64 : 32;  // rows of the tiles that a block runs over

// The two sides of a block: rows that its warps own and the tiles that pass by. `code` multiplies
// to scores, `value` to dA, `factor` is what dA's and A's product sums.
template <class T, int D>
struct Shared {
  __half own_code[kOwn * D];
  T own_value[kOwn * D];
  __half code[2][kTile<D> * D];
  T value[2][kTile<D> * D];
  T factor[2][kTile<D> * D];
  float term[2][kTile<D>];
  float normalizer[2][kTile<D>];
  float delta[2][kTile<D>];
  float own_delta[kOwn];
  Constants constants;
};

// 16 rows of a tile as A operands: kept in registers where they fit.
template <int D>
struct Rows {
  static constexpr bool kKept = D <= 64;
  mma::Tile<D> tile;
  int first, lane;
  mma::A kept[kKept ? D / 16 : 1];
  __device__ __forceinline__ Rows(const void* shared, int first_row, int lane_id)
      : tile{shared_address(shared)}, first(first_row), lane(lane_id) {
    if constexpr (kKept) {
#pragma unroll
      for (int s = 0; s < D / 16; ++s) kept[s] = mma::load_a_paired(tile, first, s, lane);
    }
  }
  __device__ __forceinline__ mma::A at(int step) const {
    if constexpr (kKept) {
      return kept[step];
    } else {
      return mma::load_a_paired(tile, first, step, lane);
    }
  }
};

// c[n] = rows * (columns [column, column + kGroup) of the tile)^T
template <class T, int D>
__device__ __forceinline__ void product(const Rows<D>& rows, const void* shared, int column,
                                        float (&c)[kGroup / 8][4]) {
  const mma::Tile<D> tile{shared_address(shared)};
#pragma unroll
  for (auto& x : c) x[0] = x[1] = x[2] = x[3] = 0.0f;
#pragma unroll
  for (int step = 0; step < D / 16; ++step) {
    const mma::A a = rows.at(step);
#pragma unroll
    for (int n = 0; n < kGroup / 8; n += 2) {
      const mma::B2 b = mma::load_b(tile, column + 8 * n, step, rows.lane);
      mma::multiply<T>(c[n], a, b.r[0], b.r[1]);
      mma::multiply<T>(c[n + 1], a, b.r[2], b.r[3]);
    }
  }
}

// acc += left * (rows [row, row + kGroup) of the tile)
template <class T, int D>
__device__ __forceinline__ void accumulate(const float (&left)[kGroup / 8][4], const void* shared,
                                           int row, int lane, float (&acc)[D / 8][4]) {
  const mma::Tile<D> tile{shared_address(shared)};
#pragma unroll
  for (int n = 0; n < kGroup / 8; n += 2) {
    const mma::A a = mma::as_a<T>(left[n], left[n + 1]);
#pragma unroll
    for (int d = 0; d < D / 16; ++d) {
      const mma::B2 b = mma::load_b_transposed(tile, row + 8 * n, d, lane);
      mma::multiply<T>(acc[2 * d], a, b.r[0], b.r[1]);
      mma::multiply<T>(acc[2 * d + 1], a, b.r[2], b.r[3]);
    }
  }
}

// Writes a warp's 16 rows, in pairs, times `factor` to a contiguous [batch, tokens, heads, D].
template <class T, int D>
__device__ __forceinline__ void write_rows(const float (&acc)[D / 8][4], float factor, void* to,
                                           int batch, int tokens, int heads, int head, int row,
                                           int lane) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + r >= tokens) continue;
    T* out = static_cast<T*>(to) +
             ((static_cast<int64_t>(batch) * tokens + row + r) * heads + head) * D + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
      *reinterpret_cast<uint32_t*>(out + 8 * n) =
          mma::pack<T>(acc[n][2 * r] * factor, acc[n][2 * r + 1] * factor);
    }
  }
}

// own_delta[i] = dO . out of the block's row i, as two threads' halves.
template <class T, int D>
__device__ __forceinline__ void guess_delta(const OpticalAttentionArgs& a,
                                            const OpticalAttentionGradArgs& g, Shared<T, D>& shared,
                                            int batch, int head, int first_row) {
  const int row = static_cast<int>(threadIdx.x) / 2, half = static_cast<int>(threadIdx.x) % 2;
  float sum = 0.0f;
  if (first_row + row < a.queries) {
    const T* grad = head_of<T>(g.grad_out, batch, head) + (first_row + row) * g.grad_out.token;
    const T* out =
        static_cast<const T*>(g.out) +
        ((static_cast<int64_t>(batch) * a.queries + first_row + row) * a.heads + head) * D;
#pragma unroll
    for (int d = half * D / 2; d < (half + 1) * D / 2; d += 8) {
      const Vec<T, 8> x = load_vec<T, 8>(grad + d), y = load_vec<T, 8>(out + d);
#pragma unroll
      for (int i = 0; i < 8; ++i) sum = fmaf(to_float(x.at[i]), to_float(y.at[i]), sum);
    }
  }
  sum += __shfl_xor_sync(0xffffffffu, sum, 1);
  if (half == 0) shared.own_delta[row] = sum;
}

template <class T, int D>
__global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2)
    query_gradient_kernel(const OpticalAttentionArgs a, const OpticalAttentionGradArgs g) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared<T, D>& shared = *reinterpret_cast<Shared<T, D>*>(memory);
  const int batch = static_cast<int>(blockIdx.x) / a.heads;
  const int head = static_cast<int>(blockIdx.x) % a.heads;
  const int kv_head = head / (a.heads / a.kv_heads);
  const int first_row = static_cast<int>(gridDim.y - 1 - blockIdx.y) * kOwn;
  const int offset = a.keys - a.queries;
  const int tiles = (min(first_row + kOwn, a.queries) - 1 + offset) / kTile<D> + 1;
  const int64_t query_row = (static_cast<int64_t>(batch) * a.heads + head) * a.queries;
  const int64_t key_row = (static_cast<int64_t>(batch) * a.kv_heads + kv_head) * a.keys;
  const auto start = [&](int tile) {
    const int stage = tile & 1, first = tile * kTile<D>;
    mma::copy_tile<kTile<D>, D, kThreads>({shared_address(shared.code[stage])},
                                          static_cast<const __half*>(a.k_code) + key_row * D, D,
                                          first, a.keys);
    mma::copy_tile<kTile<D>, D, kThreads>({shared_address(shared.value[stage])},
                                          head_of<T>(a.v, batch, kv_head), a.v.token, first,
                                          a.keys);
    mma::copy_tile<kTile<D>, D, kThreads>({shared_address(shared.factor[stage])},
                                          head_of<T>(a.k, batch, kv_head), a.k.token, first,
                                          a.keys);
    mma::commit_copies();
    if (threadIdx.x < kTile<D>) {
      const int key = first + static_cast<int>(threadIdx.x);
      shared.term[stage][threadIdx.x] = key < a.keys ? a.k_term[key_row + key] : 0.0f;
    }
  };
  mma::copy_tile<kOwn, D, kThreads>({shared_address(shared.own_code)},
                                    static_cast<const __half*>(a.q_code) + query_row * D, D,
                                    first_row, a.queries);
  mma::copy_tile<kOwn, D, kThreads>({shared_address(shared.own_value)},
                                    head_of<T>(g.grad_out, batch, head), g.grad_out.token,
                                    first_row, a.queries);
  mma::commit_copies();
  start(0);
  guess_delta<T, D>(a, g, shared, batch, head, first_row);
  prepare(a, shared.constants);
  mma::wait_copies<1>();
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Rows<D> q(shared.own_code, 16 * warp, lane), grad(shared.own_value, 16 * warp, lane);
  const int warp_row = first_row + 16 * warp, row = warp_row + 2 * (lane / 4);
  const ScoreLevels s = score_levels(a, shared.constants);
  const ScoreNoise noise(a, batch, head);
  const NoiseRow noise_row = noise.row(a, static_cast<uint32_t>(row + offset) / 2);
  float row_add[2], normalizer[2], delta[2], rest[2] = {0.0f, 0.0f};
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const bool valid = row + r < a.queries;
    row_add[r] = valid ? fmaf(a.q_term[query_row + row + r], s.per_x, s.shift) : s.shift;
    normalizer[r] = valid ? a.normalizer[query_row + row + r] : -INFINITY;
    delta[r] = shared.own_delta[row + r - first_row];
  }
  float with_grad[D / 8][4] = {}, plain[D / 8][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile & 1;
    if (tile + 1 < tiles) {
      start(tile + 1);
      mma::wait_copies<1>();
    } else {
      mma::wait_copies<0>();
    }
    __syncthreads();
#pragma unroll 2
    for (int key = 0; key < kTile<D>; key += kGroup) {
      const int first = tile * kTile<D> + key;
      if (first > warp_row + 15 + offset) break;
      float p[kGroup / 8][4], x[kGroup / 8][4];
      product<__half, D>(q, shared.code[stage], key, p);
      product<T, D>(grad, shared.value[stage], key, x);
      const PhiloxBlock words =
          noise.draw(a, noise_row, static_cast<uint32_t>(first / 4 + lane % 4));
#pragma unroll
      for (int n = 0; n < kGroup / 8; ++n) {
        const int column = key + 8 * n + 2 * (lane % 4);
        const float2 term = *reinterpret_cast<const float2*>(&shared.term[stage][column]);
        const float add[2] = {term.x * s.per_x, term.y * s.per_x};
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          const float xi = n == 0 ? low_noise(a, words.word[c]) : high_noise(a, words.word[c]);
          const float level =
              noisy_level(s, fmaf(p[n][c], s.unit, row_add[c / 2] + add[c % 2]), xi);
          p[n][c] = exp2_approximate(fmaf(level, s.log2, normalizer[c / 2]));
          if (tile * kTile<D> + column + c % 2 > row + c / 2 + offset) p[n][c] = 0.0f;
          x[n][c] = p[n][c] * (x[n][c] - delta[c / 2]);
          rest[c / 2] += x[n][c];
        }
      }
      accumulate<T, D>(x, shared.factor[stage], key, lane, with_grad);
      accumulate<T, D>(p, shared.factor[stage], key, lane, plain);
    }
    __syncthreads();
  }
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    rest[r] += __shfl_xor_sync(0xffffffffu, rest[r], 1);
    rest[r] += __shfl_xor_sync(0xffffffffu, rest[r], 2);
    if (lane % 4 == 0 && row + r < a.queries) g.delta[query_row + row + r] = delta[r] + rest[r];
  }
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) with_grad[n][c] -= rest[c / 2] * plain[n][c];
  }
  write_rows<T, D>(with_grad, a.scale, g.grad_q, batch, a.queries, a.heads, head, row, lane);
}

// The noise of a warp's 16 keys and two tiles of 8 queries (n): words[n][i] holds the random bits
// of this thread's two keys (low half, high half) and its query i of two. A Philox block serves
// keys 8 apart, which two threads hold: each draws it for one of the tiles, and they exchange
// halves.
static_assert(kGroup == 16, "two tiles of queries at a time");
__device__ __forceinline__ void patch_words(const OpticalAttentionArgs& a, const ScoreNoise& noise,
                                            int first_query, int first_key, int lane,
                                            uint32_t (&words)[2][2]) {
  const int half = lane / 16;  // of the words, for this thread's keys; the tile that it draws
  const int query = first_query + 8 * half + 2 * (lane % 4);
  const PhiloxBlock block = noise.draw(a, noise.row(a, static_cast<uint32_t>(query) / 2),
                                       static_cast<uint32_t>(first_key / 4 + lane / 4 % 4));
  const uint32_t mine = half == 0 ? 0x5410u : 0x7632u, theirs = half == 0 ? 0x7632u : 0x5410u;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t even = block.word[2 * i], odd = block.word[2 * i + 1];
    const uint32_t kept = __byte_perm(even, odd, mine);
    const uint32_t got = __shfl_xor_sync(0xffffffffu, __byte_perm(even, odd, theirs), 16);
    words[0][i] = half == 0 ? kept : got;
    words[1][i] = half == 0 ? got : kept;
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kThreads, D <= 64 ? 3 : 2)
    key_gradient_kernel(const OpticalAttentionArgs a, const OpticalAttentionGradArgs g) {
  extern __shared__ __align__(128) unsigned char memory[];
  Shared<T, D>& shared = *reinterpret_cast<Shared<T, D>*>(memory);
  const int batch = static_cast<int>(blockIdx.x) / a.kv_heads;
  const int kv_head = static_cast<int>(blockIdx.x) % a.kv_heads;
  const int per_group = a.heads / a.kv_heads;
  const int first_key = static_cast<int>(blockIdx.y) * kOwn;  // the first keys are seen by most
  const int offset = a.keys - a.queries;
  const int first_tile = max(first_key - offset, 0) / kTile<D>;
  const int row_tiles = (a.queries + kTile<D> - 1) / kTile<D> - first_tile;
  const int64_t key_row = (static_cast<int64_t>(batch) * a.kv_heads + kv_head) * a.keys;
  const int tiles = row_tiles * per_group;
  const auto start = [&](int tile) {
    const int stage = tile & 1, first = (first_tile + tile % row_tiles) * kTile<D>;
    const int head = kv_head * per_group + tile / row_tiles;
    const int64_t query_row = (static_cast<int64_t>(batch) * a.heads + head) * a.queries;
    mma::copy_tile<kTile<D>, D, kThreads>({shared_address(shared.code[stage])},
                                          static_cast<const __half*>(a.q_code) + query_row * D, D,
                                          first, a.queries);
    mma::copy_tile<kTile<D>, D, kThreads>({shared_address(shared.value[stage])},
                                          head_of<T>(g.grad_out, batch, head), g.grad_out.token,
                                          first, a.queries);
    mma::copy_tile<kTile<D>, D, kThreads>({shared_address(shared.factor[stage])},
                                          head_of<T>(a.q, batch, head), a.q.token, first,
                                          a.queries);
    mma::commit_copies();
    if (threadIdx.x < kTile<D>) {
      const int row = first + static_cast<int>(threadIdx.x);
      const bool valid = row < a.queries;
      shared.term[stage][threadIdx.x] = valid ? a.q_term[query_row + row] : 0.0f;
      shared.normalizer[stage][threadIdx.x] = valid ? a.normalizer[query_row + row] : -INFINITY;
      shared.delta[stage][threadIdx.x] = valid ? g.delta[query_row + row] : 0.0f;
    }
  };
  mma::copy_tile<kOwn, D, kThreads>({shared_address(shared.own_code)},
                                    static_cast<const __half*>(a.k_code) + key_row * D, D,
                                    first_key, a.keys);
  mma::copy_tile<kOwn, D, kThreads>({shared_address(shared.own_value)},
                                    head_of<T>(a.v, batch, kv_head), a.v.token, first_key, a.keys);
  mma::commit_copies();
  prepare(a, shared.constants);
  if (tiles > 0) {
    start(0);
    mma::wait_copies<1>();
  } else {
    mma::wait_copies<0>();
  }
  __syncthreads();

  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const Rows<D> k(shared.own_code, 16 * warp, lane), v(shared.own_value, 16 * warp, lane);
  const int warp_key = first_key + 16 * warp, key = warp_key + 2 * (lane / 4);
  const ScoreLevels s = score_levels(a, shared.constants);
  float key_add[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    key_add[r] = key + r < a.keys ? fmaf(a.k_term[key_row + key + r], s.per_x, s.shift) : s.shift;
  }
  float grad_k[D / 8][4] = {}, grad_v[D / 8][4] = {};
  for (int tile = 0; tile < tiles; ++tile) {
    const int stage = tile & 1, first = (first_tile + tile % row_tiles) * kTile<D>;
    if (tile + 1 < tiles) {
      start(tile + 1);
      mma::wait_copies<1>();
    } else {
      mma::wait_copies<0>();
    }
    __syncthreads();
    const ScoreNoise noise(a, batch, kv_head * per_group + tile / row_tiles);
#pragma unroll 2
    for (int local = 0; local < kTile<D>; local += kGroup) {
      if (first + local + kGroup - 1 + offset < warp_key) continue;
      float p[kGroup / 8][4], x[kGroup / 8][4];
      product<__half, D>(k, shared.code[stage], local, p);
      product<T, D>(v, shared.value[stage], local, x);
      uint32_t words[2][2];
      patch_words(a, noise, first + local + offset, warp_key, lane, words);
#pragma unroll
      for (int n = 0; n < kGroup / 8; ++n) {
        const int column = local + 8 * n + 2 * (lane % 4);  // of the tile: a query
        const auto pair_at = [&](const float(&values)[2][kTile<D>]) {
          return *reinterpret_cast<const float2*>(&values[stage][column]);
        };
        const float2 term = pair_at(shared.term), normalizer = pair_at(shared.normalizer),
                     delta = pair_at(shared.delta);
        const float add[2] = {term.x * s.per_x, term.y * s.per_x};
        const float shift[2] = {normalizer.x, normalizer.y}, mean[2] = {delta.x, delta.y};
#pragma unroll
        for (int c = 0; c < 4; ++c) {
          // Fragment rows are keys and columns queries: a word's row bit is c % 2.
          const uint32_t pair = words[n][c % 2];
          const float xi = c / 2 == 0 ? low_noise(a, pair) : high_noise(a, pair);
          const float level =
              noisy_level(s, fmaf(p[n][c], s.unit, key_add[c / 2] + add[c % 2]), xi);
          p[n][c] = exp2_approximate(fmaf(level, s.log2, shift[c % 2]));
          if (key + c / 2 > first + column + c % 2 + offset) p[n][c] = 0.0f;
          x[n][c] = p[n][c] * (x[n][c] - mean[c % 2]);
        }
      }
      accumulate<T, D>(p, shared.value[stage], local, lane, grad_v);
      accumulate<T, D>(x, shared.factor[stage], local, lane, grad_k);
    }
    __syncthreads();
  }
  write_rows<T, D>(grad_k, a.scale, g.grad_k, batch, a.keys, a.kv_heads, kv_head, key, lane);
  write_rows<T, D>(grad_v, 1.0f, g.grad_v, batch, a.keys, a.kv_heads, kv_head, key, lane);
}

}  // namespace
}  // namespace refract::attention

namespace refract {

cudaError_t launch_attention_backward(const OpticalAttentionArgs& a,
                                      const OpticalAttentionGradArgs& g, Dtype dtype,
                                      cudaStream_t stream) {
  return attention::dispatch_half(dtype, [&](auto element) {
    using T = decltype(element);
    return attention::dispatch_width(a.head_dim, [&](auto width) {
      using namespace attention;
      constexpr int D = decltype(width)::value;
      constexpr size_t kBytes = sizeof(Shared<T, D>);
      cudaError_t error = allow_shared(query_gradient_kernel<T, D>, kBytes);
      if (error == cudaSuccess) error = allow_shared(key_gradient_kernel<T, D>, kBytes);
      if (error != cudaSuccess) return error;
      const dim3 rows(static_cast<unsigned>(a.batch * a.heads),
                      static_cast<unsigned>((a.queries + kOwn - 1) / kOwn));
      const dim3 keys(static_cast<unsigned>(a.batch * a.kv_heads),
                      static_cast<unsigned>((a.keys + kOwn - 1) / kOwn));
      query_gradient_kernel<T, D><<<rows, kThreads, kBytes, stream>>>(a, g);
      key_gradient_kernel<T, D><<<keys, kThreads, kBytes, stream>>>(a, g);
      return cudaGetLastError();
    });
  });
}

}  // namespace refract
