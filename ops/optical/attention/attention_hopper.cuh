// What optical attention's kernels for compute capability 9.0 share. They have head width 64 and at
// most 256 levels, blocks of one warpgroup, and multiply tiles of 64 rows with wgmma. What they
// read was laid out for them by attention_operands_sm90a.cu: *records* of tiles as they lie in
// shared memory (mma::Tile<64>), so that a tile is one copy. Rows past the end are zeros.
#pragma once
#include "ops/device/copy_engine.cuh"
#include "ops/device/wgmma.cuh"
#include "ops/optical/attention/attention_tile.cuh"

namespace refract::attention::sm90a {

constexpr int kThreads = 128, kSide = 64;  // of a tile
constexpr int kTileElements = kSide * kSide, kTileBytes = 2 * kTileElements;

template <class T>
struct Tile {
  T at[kTileElements];
};
struct Numbers {
  float at[kSide];
};

// ---- Records, of 64 tokens of one head

// Forward.
struct QueryRecord {
  Tile<__half> code;  // paired
  Numbers term;
};
template <class T>
struct KeyRecord {
  Tile<__half> value_code;
  Tile<T> value;  // for the mean only
  Tile<__half> code;
  Numbers term;
};
// Backward.
template <class T>
struct GradQueryRecord {
  Tile<__half> code;  // these three gathered
  Tile<T> grad;
  Tile<T> query;
  Numbers term, normalizer, delta;
};
template <class T>
struct GradKeyRecord {
  Tile<__half> code;  // these two paired
  Tile<T> value;
  Tile<T> key;
  Numbers term;
};

__host__ __device__ __forceinline__ int tiles_of(int tokens) {
  return (tokens + kSide - 1) / kSide;
}

// ---- The tile row of a matrix row (of 64)

__device__ __forceinline__ int in_order(int row) { return row; }
// Neighbours 2 g and 2 g + 1 of 16 are g and g + 8: both are one thread's where the tile is a left
// operand.
__device__ __forceinline__ int paired(int row) {
  return row / 16 * 16 + row % 16 / 2 + row % 2 * 8;
}
// 16 t + 2 n + e is 8 n + 2 t + e: sixteen neighbours are one thread's columns where the tile is
// the right operand, transposed.
__device__ __forceinline__ int gathered(int row) {
  return row % 16 / 2 * 8 + row / 16 * 2 + row % 2;
}
// Where the 8 elements from 8 `chunk` on of a tile row are.
__device__ __forceinline__ int chunk_at(int row, int chunk) {
  return (row * 8 + (chunk ^ (row & 7))) * 8;
}

// A stage of shared memory with room for any record.
constexpr int kRecordBytes = 3 * kTileBytes + 1024;
static_assert(sizeof(GradQueryRecord<__half>) <= kRecordBytes, "room for any record");

// What is kept of a head's scores is in tiles of 64 queries x 64 keys, only those where a query
// sees a key.
struct ScoreTiles {
  int extra;  // tiles of keys that the first tile of queries sees
  __host__ __device__ __forceinline__ explicit ScoreTiles(const OpticalAttentionArgs& a)
      : extra((kSide - 1 + a.keys - a.queries) / kSide + 1) {}
  __host__ __device__ __forceinline__ int of_queries(int tile) const { return tile + extra; }
  // Tiles before those of a tile of queries.
  __host__ __device__ __forceinline__ int64_t before(int64_t tile) const {
    return tile * (tile - 1) / 2 + tile * extra;
  }
};
__host__ __device__ __forceinline__ int64_t score_tiles(const OpticalAttentionArgs& a) {
  return ScoreTiles(a).before(tiles_of(a.queries));  // of a head
}

// ---- Levels

// From positions to levels as 2^23 + level, a float. Clamping is a saturating operation and
// rounding goes down: above is 2^23 + (65536 u + 16 random bits), and what 65536 goes into it is
// the floor of u + (xi + 1/2), but for the last of the bits of xi, which moves one level in 10^5.
constexpr float kLevelShift = 8388608.0f;
__device__ __forceinline__ float shifted_level(float position, float span, float noise) {
  const float above = __fmaf_rd(__saturatef(position), span, noise);
  return __fmaf_rd(above, 1.0f / 65536.0f, kLevelShift - 128.0f);
}
__device__ __forceinline__ float noise_of(const OpticalAttentionArgs& a, uint32_t word,
                                          bool upper) {
  return __uint_as_float(__byte_perm(word, a.noise_base, upper ? a.noise_high : a.noise_low));
}

// Two whole numbers in [0, 1024) as fp16, from floats that rounding to the nearest left in the low
// bits of kRound + 0x6400 + x: 0x6400 + x is 1024 + x in fp16.
constexpr float kHalfShift = optical::kRound + 25600.0f;
__device__ __forceinline__ uint32_t pack_whole(float lo, float hi) {
  const uint32_t both =
      __byte_perm(__float_as_uint(lo + kHalfShift), __float_as_uint(hi + kHalfShift), 0x5410);
  uint32_t out;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(both), "r"(0x64006400u));
  return out;
}

// Step `step` of the reduction over a sum's 64 columns as a left operand.
template <class T>
__device__ __forceinline__ mma::A left_operand(const wgmma::Sum& x, int step) {
  return mma::as_a<T>(x[2 * step], x[2 * step + 1]);
}
template <class T>
__device__ __forceinline__ wgmma::Operand operand(const Tile<T>& tile) {
  return wgmma::Operand(shared_address(&tile));
}

}  // namespace refract::attention::sm90a
