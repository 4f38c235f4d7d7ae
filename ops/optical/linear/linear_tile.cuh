// What the roles of linear_sm90a.cu share: tiles and the order they are gone through, the shared
// memory of a block, and the ring of operands' tiles in it.
#pragma once
#include "ops/device/copy_engine.cuh"
#include "ops/optical/linear/linear_kernel.h"
#include "ops/optical/matmul/product_output.cuh"

namespace refract::optical::linear {

constexpr int kChunk = 64;  // of the reduced dimension: a swizzled row of shared memory
constexpr int kRows = 128, kColumns = 128;  // of a tile
constexpr int kCluster = 2;                 // blocks with the same columns
constexpr int kGroups = 2;                  // warpgroups of consumers, a tile each
constexpr int kConsumers = 128 * kGroups;
// The third warpgroup brings in operands (two of its warps), the fourth draws noise.
constexpr int kProducer = kConsumers, kDrawer = kProducer + 128, kBlockThreads = kDrawer + 128;
constexpr int kRowsBytes = kRows * kChunk * 2, kWeightBytes = kColumns * kChunk * 2;
constexpr int kStageBytes = kRowsBytes + kWeightBytes;
constexpr int kStages = 5;  // of the ring
constexpr int kVector =
    8;                     // columns that a thread holds side by side, and that share a noise block
constexpr int kStep = 32;  // columns between those of a thread
// Noise of kStep columns of a tile, 16 bytes for 8 columns; two slots for each consumer.
constexpr int kSlotBytes = kRows * kStep * 2, kSlots = 2;
constexpr int kRingBytes = kStages * kStageBytes;
constexpr int kDynamicBytes = kRingBytes + kGroups * kSlots * kSlotBytes;
constexpr int kBand = 8;  // pairs of row tiles that are gone through together, for the L2 cache
static_assert(kConsumers == kThreads, "move_ranges() is theirs");

struct Grid {
  int chunks, row_pairs, column_tiles;
  __host__ __device__ int tiles() const { return row_pairs * column_tiles; }
};

// What a member's outputs have in common.
struct Member {
  float gain, row_gain, column_gain, constant;  // of the values
  float share, offset, top, step, lo;           // of the levels
  PhiloxKey key;

  __device__ __forceinline__ Member(const OpticalOutputArgs& a, int member) {
    const Mix m = mix_of(a, member);
    const Quantizer q = quantizer(load_range(a.members.range[member]), a.levels, 0.0f);
    gain = m.gain;
    row_gain = m.row_gain;
    column_gain = m.column_gain;
    constant = m.constant;
    share = q.scale / q.top;
    offset = -q.lo * share;
    top = q.top;
    step = q.step;
    lo = q.lo;
    key = a.key[member];
  }
  Member() = default;
};

// What a column adds to its values, and what its results start from.
struct Columns {
  alignas(16) float term[kColumns], base[kColumns];
};

struct Shared {
  uint64_t full[kStages], empty[kStages];  // of the ring
  uint64_t drawn[kGroups][kSlots], used[kGroups][kSlots];
  Member member[kOpticalMembers];
  Columns columns[kGroups];
  Range seen[kOpticalMembers][kWarps];
  bool last;
};

struct Tile {
  int row, column;         // of all rows and columns
  int member, begin, end;  // the member's columns
};

// The tiles of a block, every `stride`-th of its cluster's order.
class Walk {
 public:
  __device__ __forceinline__ Walk(const OpticalMembers& members, const Grid& grid, int first,
                                  int stride)
      : members_(members),
        grid_(grid),
        clusters_(static_cast<int>(gridDim.x) / kCluster),
        stride_(stride * clusters_),
        index_(static_cast<int>(blockIdx.x) / kCluster + first * clusters_),
        in_band_(index_) {}

  __device__ __forceinline__ bool more() const { return index_ < grid_.tiles(); }
  // Whether the block has another tile after this one, whoever's it is.
  __device__ __forceinline__ bool followed() const { return index_ + clusters_ < grid_.tiles(); }
  __device__ __forceinline__ void next() {
    index_ += stride_;
    in_band_ += stride_;
  }
  __device__ __forceinline__ Tile tile() {
    const int band_tiles = kBand * grid_.column_tiles;
    for (; in_band_ >= band_tiles; in_band_ -= band_tiles) ++band_;
    const int pairs = grid_.row_pairs - band_ * kBand;  // left from here on
    const bool whole = pairs >= kBand;
    const int pair = whole ? in_band_ % kBand : in_band_ % pairs;
    int column_tile = whole ? in_band_ / kBand : in_band_ / pairs, tiles;
    Tile t{};
    while (column_tile >= (tiles = static_cast<int>(tiles_of<kColumns>(members_, t.member)))) {
      column_tile -= tiles;
      ++t.member;
    }
    t.row = ((band_ * kBand + pair) * kCluster + static_cast<int>(hopper::cluster_rank())) * kRows;
    t.begin = static_cast<int>(members_.begin[t.member]);
    t.end = static_cast<int>(members_.begin[t.member + 1]);
    t.column = t.begin + column_tile * kColumns;
    return t;
  }

 private:
  const OpticalMembers& members_;
  const Grid& grid_;
  int clusters_, stride_, index_, in_band_, band_ = 0;
};

// The row of the batch that a call's first row is, for the noise.
__device__ __forceinline__ int64_t first_row(const OpticalOutputArgs& a, const Now& now) {
  return static_cast<int64_t>(now.slice) * (a.rows / a.slices);
}

// Where in a slot the noise of a row's q-th eight columns lies, so that neither writing a row per
// thread nor reading as wgmma's results lie meets a bank twice.
__device__ __forceinline__ int place_of_noise(int row, int q) {
  return row * (kStep * 2) + (q + row / 2) % 4 * 16;
}

}  // namespace refract::optical::linear
