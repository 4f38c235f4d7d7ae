// Optical attention, forward, for compute capability 9.0. As attention_forward.cu: a block has 64
// query rows of one head, a warp 16 of them, and runs over the keys twice. Here a warpgroup
// multiplies 64 x 64 tiles at once, and the second pass also finds what the backward pass needs of
// the unquantized product, mean = P v. Where the memory for them is small (kKept), the first pass
// writes its levels, a byte each, and the second reads them; else it computes them again.
#include "ops/optical/attention/attention_block.cuh"
#include "ops/optical/attention/attention_hopper.cuh"
#include "ops/optical/attention/attention_output.cuh"

namespace refract::attention::sm90a {
namespace {

constexpr int kStages = 2;

// What a step brings: the first pass' codes of keys, the second's values, with the codes unless the
// levels were kept.
template <class T, bool kKept>
union Stage {
  KeyRecord<T> all;
  unsigned char bytes[kRecordBytes];
  __device__ __forceinline__ Tile<__half>& code() { return all.code; }
  __device__ __forceinline__ Numbers& term() { return all.term; }
  __device__ __forceinline__ Tile<__half>& value_code() { return all.value_code; }
  __device__ __forceinline__ Tile<T>& value() { return all.value; }
};
template <class T>
union Stage<T, true> {
  struct {
    Tile<__half> code;
    Numbers term;
  } keys;
  struct {
    Tile<__half> value_code;
    Tile<T> value;
  } values;
  __device__ __forceinline__ Tile<__half>& code() { return keys.code; }
  __device__ __forceinline__ Numbers& term() { return keys.term; }
  __device__ __forceinline__ Tile<__half>& value_code() { return values.value_code; }
  __device__ __forceinline__ Tile<T>& value() { return values.value; }
};
template <class T, bool kKept>
struct Shared {
  alignas(1024) Stage<T, kKept> stages[kStages];
  QueryRecord queries;
  uint64_t arrived[kStages];
  Constants constants;
};

// This thread's levels of a tile: eight of columns 8 n .. 8 n + 7, n = 4 i .. 4 i + 3, in at[i],
// each n a word.
struct KeptLevels {
  uint4 at[2];
};

// What a thread knows of its two rows and of how their scores become levels.
template <class T, bool kKept>
struct Rows {
  static constexpr bool kKeepsLevels = kKept;
  const OpticalAttentionArgs& a;
  Shared<T, kKept>& shared;
  int batch, head, first_row, offset, lane, warp, key_tiles;
  const KeyRecord<T>* keys;
  uint4* kept;  // this thread's levels of the first tile of keys
  ScoreLevels s;
  float span, row_add[2];

  __device__ __forceinline__ Rows(const OpticalAttentionArgs& args, Shared<T, kKept>& memory)
      : a(args), shared(memory) {
    batch = static_cast<int>(blockIdx.x) / a.heads;
    head = static_cast<int>(blockIdx.x) % a.heads;
    first_row = tile() * kSide;
    offset = a.keys - a.queries;
    lane = static_cast<int>(threadIdx.x) % 32;
    warp = static_cast<int>(threadIdx.x) / 32;
    key_tiles = (min(first_row + kSide, a.queries) - 1 + offset) / kSide + 1;
    const int kv_head = batch * a.kv_heads + head / (a.heads / a.kv_heads);
    keys = static_cast<const KeyRecord<T>*>(a.k_tiles) +
           static_cast<int64_t>(kv_head) * tiles_of(a.keys);
    if (kKept) {
      const int64_t tile_index = blockIdx.x * score_tiles(a) + ScoreTiles(a).before(tile());
      kept = static_cast<uint4*>(a.kept_levels) + tile_index * 2 * kThreads + threadIdx.x;
    }
  }
  __device__ __forceinline__ int tile() const {  // long rows first
    return static_cast<int>(gridDim.y - 1 - blockIdx.y);
  }
  __device__ __forceinline__ int64_t query_row() const {
    return static_cast<int64_t>(blockIdx.x) * a.queries;
  }
  __device__ __forceinline__ int row() const { return first_row + 16 * warp + 2 * (lane / 4); }
  __device__ __forceinline__ bool sees(int key, int c) const {
    return visible(row(), key, lane, offset, c);
  }
  // After the constants and the queries are there.
  __device__ __forceinline__ void prepare_levels() {
    s = score_levels(a, shared.constants);
    span = s.top * 65536.0f;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      row_add[r] = fmaf(shared.queries.term.at[row() + r - first_row], s.per_x, s.shift);
    }
  }

  // The block goes through the tiles of keys twice: step i < key_tiles is the first pass' tile i.
  __device__ __forceinline__ void start(int step) const {
    const bool second = step >= key_tiles;
    const KeyRecord<T>& from = keys[second ? step - key_tiles : step];
    Stage<T, kKept>& to = shared.stages[step % kStages];
    uint64_t* arrived = &shared.arrived[step % kStages];
    const bool codes = !kKept || !second, mean = second && a.mean != nullptr;
    constexpr uint32_t kCode = sizeof(Tile<__half>) + sizeof(Numbers);
    hopper::arrive_expecting(arrived, (step == 0 ? sizeof(QueryRecord) : 0) + (codes ? kCode : 0) +
                                          (second ? kTileBytes : 0) + (mean ? kTileBytes : 0));
    if (codes) hopper::copy_bytes(&to.code(), &from.code, kCode, arrived);
    if (second) hopper::copy_bytes(&to.value_code(), &from.value_code, kTileBytes, arrived);
    if (mean) hopper::copy_bytes(&to.value(), &from.value, kTileBytes, arrived);
    if (step == 0) {
      const QueryRecord* queries = static_cast<const QueryRecord*>(a.q_tiles) +
                                   static_cast<int64_t>(blockIdx.x) * tiles_of(a.queries) + tile();
      hopper::copy_bytes(&shared.queries, queries, sizeof(QueryRecord), arrived);
    }
  }
  __device__ __forceinline__ Stage<T, kKept>& stage(int step) const {
    return shared.stages[step % kStages];
  }
  __device__ __forceinline__ void keep(int tile, const wgmma::Sum& x) const {
    uint32_t words[8];
#pragma unroll
    for (int n = 0; n < 8; ++n) {  // the last byte of a shifted level is the level
      const auto pair = [&](int c) {
        return __byte_perm(__float_as_uint(x[n][c]), __float_as_uint(x[n][c + 1]), 0x0040);
      };
      words[n] = __byte_perm(pair(0), pair(2), 0x5410);
    }
    __stcg(kept + tile * 2 * kThreads, make_uint4(words[0], words[1], words[2], words[3]));
    __stcg(kept + (tile * 2 + 1) * kThreads, make_uint4(words[4], words[5], words[6], words[7]));
  }
  __device__ __forceinline__ KeptLevels kept_levels(int tile) const {
    return {{__ldcg(kept + tile * 2 * kThreads), __ldcg(kept + (tile * 2 + 1) * kThreads)}};
  }
  __device__ __forceinline__ void await(int step) const {
    hopper::wait(&shared.arrived[step % kStages], step / kStages % 2);
  }
  // The block is done with a step: its memory is for another.
  __device__ __forceinline__ void finish(int step) const {
    __syncthreads();
    if (threadIdx.x == 0 && step + kStages < 2 * key_tiles) start(step + kStages);
  }
};

// x = the code products of the block's rows with a tile of keys.
template <class R>
__device__ __forceinline__ void multiply_keys(const R& rows, const Tile<__half>& keys,
                                              wgmma::Sum& x) {
  const wgmma::Operand q = operand(rows.shared.queries.code), k = operand(keys);
  wgmma::begin();
#pragma unroll
  for (int step = 0; step < 4; ++step) {
    wgmma::multiply_shared<__half, false, false>(x, wgmma::along_rows(q, step),
                                                 wgmma::along_rows(k, step), step == 0);
  }
  wgmma::commit();
  wgmma::wait<0>();
}

// Code products to shifted levels, in place. kSeen: includes the positions in `seen`.
template <bool kSeen, bool kMasked, class R>
__device__ __forceinline__ void draw_levels(const R& rows, const ScoreNoise& noise,
                                            const NoiseRow& noise_row, int first,
                                            const Numbers& terms, optical::Range& seen,
                                            wgmma::Sum& x) {
  const OpticalAttentionArgs& a = rows.a;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    if (n % 2 == 1) continue;
    const PhiloxBlock block =
        noise.draw(a, noise_row, static_cast<uint32_t>(first / 4 + 2 * n + rows.lane % 4));
#pragma unroll
    for (int m = n; m < n + 2; ++m) {
      const float2 term = *reinterpret_cast<const float2*>(&terms.at[8 * m + 2 * (rows.lane % 4)]);
      const float column[2] = {term.x, term.y};
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float p =
            fmaf(x[m][c], rows.s.unit, fmaf(column[c % 2], rows.s.per_x, rows.row_add[c / 2]));
        if (kSeen &&
            (!kMasked || (rows.sees(first + 8 * m, c) && rows.row() + c / 2 < a.queries))) {
          seen = optical::include(seen, p);
        }
        x[m][c] = shifted_level(p, rows.span, noise_of(a, block.word[c], m != n));
      }
    }
  }
}

// Sums of exp2((level - middle) log2): where the levels span no more than 2^200, no maximum is
// needed for no term to overflow and none that counts to vanish.
struct PlainSums {
  float log2, shift, middle;  // level log2 + middle is what shifted level * log2 + shift adds up to
  bool enough;
  float sum[2] = {0.0f, 0.0f};
  __device__ __forceinline__ explicit PlainSums(const ScoreLevels& s) : log2(s.log2) {
    shift = -fmaf(kLevelShift, log2, 0.5f * s.top * log2);
    middle = fmaf(kLevelShift, log2, shift);
    enough = s.top * log2 <= 200.0f;
  }
  template <bool kMasked, class R>
  __device__ __forceinline__ void include(const R& rows, int first, const wgmma::Sum& x) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const float e = exp2_approximate(fmaf(x[n][c], log2, shift));
        if (!kMasked || rows.sees(first + 8 * n, c)) sum[c / 2] += e;
      }
    }
  }
  __device__ __forceinline__ float normalizer(int r) const {
    float s = sum[r];
    s += __shfl_xor_sync(0xffffffffu, s, 1);
    s += __shfl_xor_sync(0xffffffffu, s, 2);
    return middle - log2f(s);
  }
};

template <bool kMasked, class R>
__device__ __forceinline__ void first_pass_tile(const R& rows, const ScoreNoise& noise,
                                                const NoiseRow& noise_row, int tile,
                                                const Numbers& terms, wgmma::Sum& x,
                                                optical::Range& seen, PlainSums& plain,
                                                RowSums& sums) {
  const int first = tile * kSide;
  draw_levels<true, kMasked>(rows, noise, noise_row, first, terms, seen, x);
  if (R::kKeepsLevels) rows.keep(tile, x);
  if (plain.enough) {
    plain.include<kMasked>(rows, first, x);
    return;
  }
#pragma unroll
  for (int n = 0; n < 8; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) x[n][c] -= kLevelShift;
  }
  sums.include<kMasked>(x, rows.s.log2, rows.row(), first, rows.lane, rows.offset);
}

// Shifted levels of keys 8 (n + i) to probabilities times the highest level, in place.
template <bool kMasked, int N, class R>
__device__ __forceinline__ void weights(const R& rows, int key, const float (&to_levels)[2],
                                        float (&x)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; ++n) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float level = x[n][c] - kLevelShift;
      x[n][c] = exp2_approximate(fmaf(level, rows.s.log2, to_levels[c / 2]));
      if (kMasked && !rows.sees(key + 8 * n, c)) x[n][c] = 0.0f;
    }
  }
}
__device__ __forceinline__ mma::A whole_operand(const float (&left)[4], const float (&right)[4]) {
  return {{pack_whole(left[0], left[1]), pack_whole(left[2], left[3]),
           pack_whole(right[0], right[1]), pack_whole(right[2], right[3])}};
}

// What the second pass sums.
struct Sums {
  wgmma::Sum acc = {}, mean = {};
  float p[4] = {};  // the product of the probability levels with ones
};
// Adds N / 2 steps of the reduction from `step` on: x holds the weights of 8 N keys.
template <class T, bool kMean, int N, class S>
__device__ __forceinline__ void add_values(S& stage, int step, const float (&x)[N][4], Sums& sums) {
  constexpr uint32_t kOnes = 0x3c003c00;
  const wgmma::Operand v = operand(stage.value_code()), plain = operand(stage.value());
  mma::A p[N / 2], mean[N / 2];
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    p[i] = whole_operand(x[2 * i], x[2 * i + 1]);
    if (kMean) mean[i] = mma::as_a<T>(x[2 * i], x[2 * i + 1]);
  }
  wgmma::begin();
#pragma unroll
  for (int i = 0; i < N / 2; ++i) {
    wgmma::multiply<__half, true>(sums.acc, p[i], wgmma::down_rows(v, step + i));
    if (kMean) wgmma::multiply<T, true>(sums.mean, mean[i], wgmma::down_rows(plain, step + i));
  }
  wgmma::commit();
#pragma unroll
  for (int i = 0; i < N / 2; ++i) mma::multiply<__half>(sums.p, p[i], kOnes, kOnes);
}

// The second pass over a tile of keys, from kept levels, 32 keys at a time.
template <class T, bool kMean, bool kMasked, class R>
__device__ __forceinline__ void second_pass_tile(const R& rows, int first, int step,
                                                 const KeptLevels& kept,
                                                 const float (&to_levels)[2], Sums& sums) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const uint32_t words[4] = {kept.at[half].x, kept.at[half].y, kept.at[half].z, kept.at[half].w};
    float x[4][4];
#pragma unroll
    for (int n = 0; n < 4; ++n) {
#pragma unroll
      for (int c = 0; c < 4; ++c) {  // the level and the bytes of 2^23
        x[n][c] =
            __uint_as_float(__byte_perm(words[n], 0x4B000000u, 0x7650u + static_cast<uint32_t>(c)));
      }
    }
    weights<kMasked>(rows, first + 32 * half, to_levels, x);
    if (half > 0) wgmma::wait<0>();  // its registers are taken again
    add_values<T, kMean>(rows.stage(step), 2 * half, x, sums);
  }
}

template <class T, class R>
__device__ __forceinline__ void write_mean(const R& b, const wgmma::Sum& acc) {
  const OpticalAttentionArgs& a = b.a;
  const float factor = 1.0f / static_cast<float>(a.levels - 1);
  T* out = static_cast<T*>(a.mean);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (b.row() + r >= a.queries) continue;
    const int64_t token = static_cast<int64_t>(b.batch) * a.queries + b.row() + r;
    T* to = out + (token * a.heads + b.head) * kSide + 2 * (b.lane % 4);
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      *reinterpret_cast<uint32_t*>(to + 8 * n) =
          mma::pack<T>(acc[n][2 * r] * factor, acc[n][2 * r + 1] * factor);
    }
  }
}

template <class T, bool kMean, bool kKept>
__global__ void __launch_bounds__(kThreads, kKept ? 4 : 3)
    forward_kernel(const OpticalAttentionArgs a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
  extern __shared__ __align__(1024) unsigned char memory[];
  Shared<T, kKept>& shared = *reinterpret_cast<Shared<T, kKept>*>(memory);
  Rows<T, kKept> rows(a, shared);
  if (threadIdx.x == 0) {
    for (auto& arrived : shared.arrived) hopper::init_barrier(&arrived, 1);
    hopper::fence_barrier_init();
    rows.start(0);
    if (2 * rows.key_tiles > 1) rows.start(1);
  }
  prepare(a, shared.constants);
  __syncthreads();
  rows.await(0);
  rows.prepare_levels();
  const int row = rows.row(), lane = rows.lane;
  const ScoreNoise noise(a, rows.batch, rows.head);
  const NoiseRow noise_row = noise.row(a, static_cast<uint32_t>(row + rows.offset) / 2);
  const auto cut = [&](int tile) {  // whether a row of the block doesn't see all of the tile's keys
    return (tile + 1) * kSide - 1 > rows.first_row + rows.offset;
  };

  optical::Range seen = optical::unset_range();
  PlainSums plain(rows.s);
  RowSums sums;
  for (int tile = 0; tile < rows.key_tiles; ++tile) {
    rows.await(tile);
    Stage<T, kKept>& stage = rows.stage(tile);
    wgmma::Sum x;
    multiply_keys(rows, stage.code(), x);
    if (cut(tile) || rows.first_row + kSide > a.queries) {
      first_pass_tile<true>(rows, noise, noise_row, tile, stage.term(), x, seen, plain, sums);
    } else {
      first_pass_tile<false>(rows, noise, noise_row, tile, stage.term(), x, seen, plain, sums);
    }
    rows.finish(tile);
  }
  if (optical::is_set(running_range(a, kScore))) {
    const optical::Range all = warp_range(seen);
    if (lane == 0 && optical::is_set(all)) {
      see(a, kScore,
          {(all.lo - rows.s.shift) / rows.s.per_x, (all.hi - rows.s.shift) / rows.s.per_x});
    }
  }
  float to_levels[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    // A NaN in q saturates to a level; it comes back here.
    const float normalizer =
        (plain.enough ? plain.normalizer(r) : sums.normalizer(r, rows.s.log2)) +
        0.0f * rows.row_add[r];
    to_levels[r] = normalizer + log2f(rows.s.top);
    if (lane % 4 == 0 && row + r < a.queries) {
      a.normalizer[rows.query_row() + row + r] = normalizer;
    }
  }

  Sums out;
  for (int tile = 0; tile < rows.key_tiles; ++tile) {
    const int first = tile * kSide, step = rows.key_tiles + tile;
    if constexpr (kKept) {
      const KeptLevels kept = rows.kept_levels(tile);
      rows.await(step);
      if (cut(tile)) {
        second_pass_tile<T, kMean, true>(rows, first, step, kept, to_levels, out);
      } else {
        second_pass_tile<T, kMean, false>(rows, first, step, kept, to_levels, out);
      }
    } else {
      rows.await(step);
      Stage<T, kKept>& stage = rows.stage(step);
      wgmma::Sum x;
      multiply_keys(rows, stage.code(), x);
      draw_levels<false, false>(rows, noise, noise_row, first, stage.term(), seen, x);
      if (cut(tile)) {
        weights<true>(rows, first, to_levels, x);
      } else {
        weights<false>(rows, first, to_levels, x);
      }
      add_values<T, kMean>(stage, 0, x, out);
    }
    wgmma::wait<0>();
    rows.finish(step);
  }
  const float p_sum[2] = {out.p[0], out.p[2]};
  const optical::Range out_seen = output_seen<kSide>(rows, out.acc, p_sum);
  if (lane == 0 && optical::is_set(running_range(a, kOutput))) see(a, kOutput, out_seen);
  write_output<T, kSide>(rows, out.acc, p_sum);
  if (kMean) write_mean<T>(rows, out.mean);
#endif
}

template <class T, bool kMean, bool kKept>
cudaError_t launch(const OpticalAttentionArgs& a, cudaStream_t stream) {
  const auto kernel = forward_kernel<T, kMean, kKept>;
  constexpr size_t kBytes = sizeof(Shared<T, kKept>);
  if (const cudaError_t error = allow_shared(kernel, kBytes); error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(a.batch * a.heads),
                  static_cast<unsigned>(tiles_of(a.queries)));
  kernel<<<grid, kThreads, kBytes, stream>>>(a);
  return cudaGetLastError();
}
template <class T, bool kMean>
cudaError_t launch(const OpticalAttentionArgs& a, cudaStream_t stream) {
  return a.kept_levels != nullptr ? launch<T, kMean, true>(a, stream)
                                  : launch<T, kMean, false>(a, stream);
}

}  // namespace
}  // namespace refract::attention::sm90a

namespace refract {

cudaError_t launch_attention_forward_hopper(const OpticalAttentionArgs& a, Dtype dtype,
                                            cudaStream_t stream) {
  return attention::dispatch_half(dtype, [&](auto element) {
    using T = decltype(element);
    return a.mean != nullptr ? attention::sm90a::launch<T, true>(a, stream)
                             : attention::sm90a::launch<T, false>(a, stream);
  });
}

}  // namespace refract
