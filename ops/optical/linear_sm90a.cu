// An optical linear layer's product of codes with its noise, quantization, bias and range, without
// the product in memory. Blocks stay and go from tile to tile. One warp of a block brings in tiles
// of both operands by the copy engine; two warpgroups take turns: while one multiplies its tile on
// the tensor cores, the other finishes what it holds in registers. The two blocks of a cluster have
// the same columns, and each brings in half of the weight's tile for both.
#include <climits>

#include "ops/common/hopper.cuh"
#include "ops/common/tensor_map.h"
#include "ops/optical/linear_kernel.h"
#include "ops/optical/product_output.cuh"

namespace refract {
namespace {

using optical::Range;

constexpr int kChunk = 64;  // of the reduced dimension: a swizzled row of shared memory
constexpr int kRows = 128, kColumns = 128;  // of a tile
constexpr int kGroups = 2;                  // of consumers, a tile each
constexpr int kConsumers = 128 * kGroups, kBlockThreads = kConsumers + 128;
constexpr int kCluster = 2;  // blocks
constexpr int kStages = 6;   // of the ring
constexpr int kRowsBytes = kRows * kChunk * 2, kWeightBytes = kColumns * kChunk * 2;
constexpr int kStageBytes = kRowsBytes + kWeightBytes;
constexpr int kRingBytes = kStages * kStageBytes;
constexpr int kBand = 8;    // pairs of row tiles that are gone through together, for the L2 cache
constexpr int kVector = 8;  // columns that a thread holds side by side, and that share noise
// Named barriers of the hardware.
constexpr int kGroupBarrier = 1, kTurnBarrier = kGroupBarrier + kGroups,
              kConsumersBarrier = kTurnBarrier + kGroups;
static_assert(kConsumers == optical::kThreads, "move_ranges() is theirs");

struct Grid {
  int chunks, row_pairs, column_tiles;
};

// What a column adds to its values, and what its results start from.
struct Columns {
  alignas(16) float term[kColumns], base[kColumns];
};

struct Shared {
  uint64_t full[kStages], empty[kStages];
  optical::Quantizer quantizer[kOpticalMembers];
  optical::Mix mix[kOpticalMembers];
  PhiloxKey key[kOpticalMembers];
  Columns columns[kGroups];
  Range seen[kOpticalMembers][optical::kWarps];
  bool last;
};

struct Tile {
  int row, column, member;  // of all rows and columns
  int column_end;           // of the member

  __device__ __forceinline__ Tile(const OpticalMembers& m, const Grid& g, int index) {
    const int band = index / (kBand * g.column_tiles), in_band = index % (kBand * g.column_tiles);
    const int left = g.row_pairs - band * kBand, pairs = left < kBand ? left : kBand;
    int tile = in_band / pairs, tiles;
    member = 0;
    while (tile >= (tiles = static_cast<int>(optical::tiles_of<kColumns>(m, member)))) {
      tile -= tiles;
      ++member;
    }
    row = ((band * kBand + in_band % pairs) * kCluster + static_cast<int>(hopper::cluster_rank())) *
          kRows;
    column = static_cast<int>(m.begin[member]) + tile * kColumns;
    column_end = static_cast<int>(m.begin[member + 1]);
  }
};

__device__ __forceinline__ void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}

// The warpgroups multiply in turn, so that each finds the ring's barriers in the lap that it
// expects and has the tensor cores to itself.
__device__ __forceinline__ void wait_for_turn(int group) {
  sync_threads(kTurnBarrier + group, kConsumers);
}
__device__ __forceinline__ void give_turn(int group) {
  asm volatile("bar.arrive %0, %1;" ::"r"(kTurnBarrier + group), "n"(kConsumers) : "memory");
}

// Where in the ring one is; the parity flips with every lap.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void skip(int stages) {
    stage += stages % kStages;
    parity ^= static_cast<uint32_t>(stages / kStages) & 1;
    if (stage >= kStages) {
      stage -= kStages;
      parity ^= 1;
    }
  }
};

__device__ __forceinline__ void produce(const CUtensorMap* x, const CUtensorMap* weight,
                                        const OpticalMembers& members, const Grid& grid, char* ring,
                                        Shared& shared) {
  const int rank = static_cast<int>(hopper::cluster_rank());
  const int clusters = static_cast<int>(gridDim.x) / kCluster;
  Place place;
  for (int i = static_cast<int>(blockIdx.x) / kCluster; i < grid.row_pairs * grid.column_tiles;
       i += clusters) {
    const Tile tile(members, grid, i);
    for (int chunk = 0; chunk < grid.chunks; ++chunk) {
      char* at = ring + place.stage * kStageBytes;
      uint64_t* full = &shared.full[place.stage];
      hopper::wait(&shared.empty[place.stage], place.parity ^ 1);
      hopper::arrive_expecting(full, kStageBytes);
      hopper::copy_box(at, x, full, chunk * kChunk, tile.row, 0);
      hopper::copy_spread_rows(at + kRowsBytes + rank * (kWeightBytes / kCluster), weight, full,
                               chunk * kChunk, tile.column / 32 + rank * (kColumns / 32 / kCluster),
                               (1 << kCluster) - 1);
      place.next();
    }
  }
}

using Sums = float[2][kColumns / 2];  // of 2 x 64 rows

// What a consumer needs of the ring, as the instructions take it: the loop has few cycles for
// anything but products, since the other warpgroup takes its share of the issue slots.
struct Ring {
  uint32_t full, empty;  // addresses of the first stage's barriers; `empty` this lane's block's
  uint64_t upper, lower, columns;  // operands of the first stage
  bool releases;                   // a lane that tells one of the blocks that a stage is free

  __device__ __forceinline__ Ring(const char* ring, Shared& shared) {
    const uint32_t lane = threadIdx.x % 32;
    releases = lane < kCluster;
    full = hopper::shared_address(shared.full);
    empty = hopper::address_at(shared.empty, releases ? lane : 0);
    upper = hopper::operand<128>(ring);
    lower = hopper::operand<128>(ring + 64 * kChunk * 2);
    columns = hopper::operand<128>(ring + kRowsBytes);
  }
  // A stage is free again once the warpgroups of both blocks have read it.
  __device__ __forceinline__ void release(int stage) const {
    if (releases) hopper::arrive_at(empty + 8 * static_cast<uint32_t>(stage));
  }
};

// then(): called once all products are on their way.
template <class F>
__device__ __forceinline__ void multiply(Sums& d, int chunks, const Ring& ring, Place& place,
                                         F then) {
  int held = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    hopper::wait_at(ring.full + 8 * static_cast<uint32_t>(place.stage), place.parity);
    const auto at = static_cast<uint64_t>(place.stage * (kStageBytes / 16));
    const uint64_t a = ring.upper + at, a2 = ring.lower + at, b = ring.columns + at;
    hopper::wgmma_begin();
#pragma unroll
    for (int i = 0; i < kChunk / 16; ++i) {  // 16 columns are 32 bytes
      hopper::wgmma<__half, kColumns>(d[0], a + 2 * i, b + 2 * i, chunk > 0 || i > 0);
      hopper::wgmma<__half, kColumns>(d[1], a2 + 2 * i, b + 2 * i, chunk > 0 || i > 0);
    }
    hopper::wgmma_commit();
    hopper::wgmma_wait<1>();
    if (chunk > 0) ring.release(held);
    held = place.stage;
    place.next();
  }
  then();
  hopper::wgmma_wait<0>();
  hopper::keep(d[0]);
  hopper::keep(d[1]);
  ring.release(held);
}

constexpr int kHeld = 4;  // rows of a tile that a thread has parts of
// The r-th of them.
__device__ __forceinline__ constexpr int row_offset(int r) { return r / 2 * 64 + r % 2 * 8; }

// Where a thread's outputs lie: in its rows, eight columns of each 32.
template <class T>
struct Outputs {
  T* at[kHeld];           // in memory
  uint64_t block[kHeld];  // of noise
  bool there[kHeld];
  int columns;  // of the member, from the thread's first on

  __device__ __forceinline__ Outputs(const OpticalOutputArgs& a, const Tile& tile, int row,
                                     uint64_t slice) {
    const int column = tile.column + static_cast<int>(threadIdx.x) % 4 * kVector;
    const int64_t begin = a.members.begin[tile.member], width = tile.column_end - begin;
    const auto first = static_cast<int64_t>(slice) * (a.rows / a.slices);  // row of the batch
    columns = tile.column_end - column;
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      const int64_t r = row + row_offset(i);
      at[i] = static_cast<T*>(a.y) + r * a.columns + column;
      block[i] = static_cast<uint64_t>((first + r) * width + column - begin) >> 3;
      there[i] = r < a.rows;
    }
  }
  __device__ __forceinline__ void store(int i, int offset, const Vec<T, kVector>& v) const {
    if (there[i] && offset < columns) store_vec(at[i] + offset, v);
  }
};

// What the outputs of a tile's member have in common.
struct Common {
  float gain, share, offset, top, step, noise;
  uint32_t noise_base;
  const PhiloxKey* key;  // in shared memory
  uint64_t now;
};

// Eight outputs side by side, from their products. Clamping is the multiply-add's own saturation,
// which makes 0 of a NaN: a column's `base` and a row's `step` carry it.
template <class T, bool kDraws>
__device__ __forceinline__ Vec<T, kVector> finish(const float (&product)[kVector], float row_term,
                                                  float step, const Common& c,
                                                  const float (&term)[kVector],
                                                  const float (&base)[kVector],
                                                  const PhiloxBlock& drawn, Range& seen) {
  Vec<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float value = __fmaf_rn(c.gain, product[j], row_term + term[j]);
    seen = optical::include(seen, value);
    const float f =
        __uint_as_float(__byte_perm(drawn.word[j / 2], c.noise_base, j % 2 ? 0x7632 : 0x7610));
    const float xi = kDraws ? __fmaf_rn(f, 1.0f / 65536.0f, -128.5f) : c.noise;
    const float place = __saturatef(__fmaf_rn(value, c.share, c.offset));
    const float level = optical::round_even(__fmaf_rn(place, c.top, xi));
    out.at[j] = from_float<T>(__fmaf_rn(level, step, base[j]));
  }
  return out;
}

__device__ __forceinline__ void load_eight(float (&to)[kVector], const float* from) {
#pragma unroll
  for (int j = 0; j < kVector; j += 4) {
    const float4 v = *reinterpret_cast<const float4*>(from + j);
    to[j] = v.x;
    to[j + 1] = v.y;
    to[j + 2] = v.z;
    to[j + 3] = v.w;
  }
}

__device__ __forceinline__ PhiloxKey load_key(const PhiloxKey* p) {
  PhiloxKey key;
  asm volatile("ld.volatile.shared.v2.u32 {%0, %1}, [%2];"
               : "=r"(key.lo), "=r"(key.hi)
               : "r"(hopper::shared_address(p))
               : "memory");
  return key;
}

template <class T, bool kDraws>
__device__ __forceinline__ void write_outputs(const Outputs<T>& outputs, const Common& c,
                                              const Columns& columns, Sums& d,
                                              const float (&row_term)[kHeld], Range& seen) {
  const int own = static_cast<int>(threadIdx.x) % 4 * kVector;
  // A loop, with the sums moved through the registers that its body reads: unrolled, the code would
  // be larger than the cache of instructions.
#pragma unroll 1
  for (int i = 0; i < kColumns / 32; ++i) {
    float term[kVector], base[kVector];
    load_eight(term, columns.term + own + 32 * i);
    load_eight(base, columns.base + own + 32 * i);
    PhiloxBlock drawn[kHeld] = {};
    // Read anew, or the compiler keeps the keys of all rounds and what follows from them, for which
    // there are not enough registers.
    const PhiloxKey key = load_key(c.key);
#pragma unroll
    for (int r = 0; r < kHeld; ++r) {
      if (kDraws) drawn[r] = philox(key, c.now, outputs.block[r] + 4 * i);
    }
#pragma unroll
    for (int r = 0; r < kHeld; ++r) {
      float product[kVector];
#pragma unroll
      for (int j = 0; j < kVector; ++j) product[j] = d[r / 2][j / 2 * 4 + r % 2 * 2 + j % 2];
      outputs.store(r, 32 * i,
                    finish<T, kDraws>(product, row_term[r], __fmaf_rn(row_term[r], 0.0f, c.step), c,
                                      term, base, drawn[r], seen));
    }
#pragma unroll
    for (int m = 0; m < 2; ++m) {
#pragma unroll
      for (int j = 0; j < kColumns / 2 - 16; ++j) d[m][j] = d[m][j + 16];
    }
  }
}

// Keeps what a warp saw of a member.
__device__ __forceinline__ void keep_seen(Shared& shared, int member, Range seen) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    seen = optical::merge(seen, {__shfl_xor_sync(kFullWarp, seen.lo, offset),
                                 __shfl_xor_sync(kFullWarp, seen.hi, offset)});
  }
  Range& kept = shared.seen[member][threadIdx.x / 32];
  if (threadIdx.x % 32 == 0) kept = optical::merge(kept, seen);
}

template <class T, bool kDraws>
__device__ __forceinline__ void consume(const OpticalOutputArgs& a, const Grid& grid,
                                        const char* ring, Shared& shared) {
  // From one lane, so that what follows from it is known to be the same in a whole warp.
  const int group = __shfl_sync(kFullWarp, static_cast<int>(threadIdx.x) / 128, 0);
  const int own = static_cast<int>(threadIdx.x) % 128;
  const Ring own_ring(ring, shared);
  const int clusters = static_cast<int>(gridDim.x) / kCluster;
  const int tiles = grid.row_pairs * grid.column_tiles;
  const optical::Now now = optical::now_of(a.clock);
  Place place;
  if (group > 0) give_turn(0);
  int i = static_cast<int>(blockIdx.x) / kCluster + group * clusters;
  place.skip(group * grid.chunks);
  for (; i < tiles; i += kGroups * clusters) {
    const Tile tile(a.members, grid, i);
    const bool has = tile.column + own < tile.column_end;
    const float column_sum = has ? a.column_sums[tile.column + own] : NAN;
    const float bias = has && a.bias != nullptr
                           ? to_float(static_cast<const T*>(a.bias)[tile.column + own])
                           : 0.0f;
    const int row = tile.row + own / 32 * 16 + own % 32 / 4;
    float row_term[kHeld];
#pragma unroll
    for (int r = 0; r < kHeld; ++r) {
      // NaN for a row that is not there, so that its values enter no range.
      row_term[r] = row + row_offset(r) < a.rows ? a.row_sums[row + row_offset(r)] : NAN;
    }
    Sums d;
    wait_for_turn(group);
    multiply(d, grid.chunks, own_ring, place, [&] {
      if (i + clusters < tiles) give_turn(1 - group);
    });
    place.skip((kGroups - 1) * grid.chunks);
    const optical::Mix& mix = shared.mix[tile.member];
    const optical::Quantizer& q = shared.quantizer[tile.member];
    const float term = optical::add(optical::mul(mix.column_gain, column_sum), mix.constant);
    shared.columns[group].term[own] = term;
    shared.columns[group].base[own] = __fmaf_rn(term, 0.0f, q.lo + bias);
#pragma unroll
    for (int r = 0; r < kHeld; ++r) row_term[r] *= mix.row_gain;
    const float share = q.scale / q.top;
    uint32_t noise_base = 0x4B000000u;
    asm volatile("" : "+r"(noise_base));
    const Common common{mix.gain, share,    -q.lo * share, q.top,
                        q.step,   a.shared, noise_base,    &shared.key[tile.member],
                        now.step};
    sync_threads(kGroupBarrier + group, 128);
    Range seen = optical::unset_range();
    const Outputs<T> outputs(a, tile, row, now.slice);
    write_outputs<T, kDraws>(outputs, common, shared.columns[group], d, row_term, seen);
    if (a.train) keep_seen(shared, tile.member, seen);
    sync_threads(kGroupBarrier + group, 128);  // before the next tile's columns
  }
}

// What a block saw goes to its parts; the last block moves the ranges.
__device__ __forceinline__ void tell(const OpticalOutputArgs& a, float* parts, Shared& shared) {
  sync_threads(kConsumersBarrier, kConsumers);
  if (threadIdx.x < a.members.count) {
    Range seen = optical::unset_range();
#pragma unroll
    for (const Range& r : shared.seen[threadIdx.x]) seen = optical::merge(seen, r);
    optical::store_range(parts + 2 * (threadIdx.x * gridDim.x + blockIdx.x), seen);
  }
  __syncwarp();
  if (threadIdx.x == 0) shared.last = optical::is_last(a.ticket, gridDim.x);
  sync_threads(kConsumersBarrier, kConsumers);
  if (!shared.last) return;
  optical::move_ranges(a, nullptr, parts, [](int member) {
    return optical::Parts{static_cast<int64_t>(member) * gridDim.x, gridDim.x};
  });
}

template <class T, bool kDraws>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kBlockThreads, 1)
    linear_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                  const __grid_constant__ OpticalOutputArgs a, float* parts, Grid grid) {
  extern __shared__ __align__(1024) char ring[];
  __shared__ Shared shared;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::init_barrier(&shared.full[i], 1);
      hopper::init_barrier(&shared.empty[i], 4 * kCluster);
    }
    hopper::fence_barrier_init();
  }
  if (threadIdx.x < kOpticalMembers * optical::kWarps) {
    shared.seen[threadIdx.x / optical::kWarps][threadIdx.x % optical::kWarps] =
        optical::unset_range();
  }
  optical::wait_for_earlier();
  if (threadIdx.x < a.members.count) {
    shared.quantizer[threadIdx.x] =
        optical::quantizer(optical::load_range(a.members.range[threadIdx.x]), a.levels, 0.0f);
    shared.mix[threadIdx.x] = optical::mix_of(a, static_cast<int>(threadIdx.x));
    shared.key[threadIdx.x] = a.key[threadIdx.x];
  }
  __syncthreads();
  hopper::cluster_sync();
  if (threadIdx.x >= kConsumers) {
    hopper::give_registers<40>();
    if (threadIdx.x == kConsumers) produce(&x, &weight, a.members, grid, ring, shared);
    __syncwarp();  // the barrier below is for whole warps
  } else {
    hopper::take_registers<232>();
    consume<T, kDraws>(a, grid, ring, shared);
    if (a.train) tell(a, parts, shared);
  }
  hopper::cluster_sync();  // no block may go while the other one signals to it
}

Grid grid_of(const OpticalLinearArgs& args) {
  const OpticalOutputArgs& a = args.output;
  Grid g{static_cast<int>((a.inner + kChunk - 1) / kChunk),
         static_cast<int>((a.rows + kRows * kCluster - 1) / (kRows * kCluster)), 0};
  for (int m = 0; m < a.members.count; ++m) {
    g.column_tiles += static_cast<int>(optical::tiles_of<kColumns>(a.members, m));
  }
  return g;
}

// As many blocks as the device holds, or as there are tiles.
int blocks_of(const Grid& grid) {
  int device = 0, chip = 0;
  if (cudaGetDevice(&device) != cudaSuccess ||
      cudaDeviceGetAttribute(&chip, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
    return kCluster;
  }
  const int tiles = grid.row_pairs * grid.column_tiles, most = chip / kCluster;
  return kCluster * (tiles < most ? tiles : most);
}

template <class T, bool kDraws>
cudaError_t launch(const OpticalLinearArgs& args, float* seen, cudaStream_t stream) {
  const OpticalOutputArgs& a = args.output;
  CUtensorMap x, weight;
  if (!make_tensor_map(&x, Dtype::kFloat16, {args.x_codes, a.inner, a.rows, 1, a.rows * a.inner},
                       kRows, kChunk) ||
      !make_spread_rows_map(&weight, args.w_codes, a.inner, a.columns, kColumns / kCluster)) {
    return cudaErrorInvalidValue;
  }
  const auto kernel = linear_kernel<T, kDraws>;
  if (auto e =
          cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kRingBytes)) {
    return e;
  }
  const Grid grid = grid_of(args);
  const dim3 blocks(static_cast<unsigned>(blocks_of(grid)));
  return optical::launch_overlapped(kernel, {blocks, kBlockThreads, kRingBytes}, stream, x, weight,
                                    a, seen, grid);
}

}  // namespace

bool can_fuse_optical_linear(const OpticalLinearArgs& args, Dtype dtype) {
  constexpr int64_t kLeastRows = 512;  // fewer don't fill the device with tiles
  const OpticalOutputArgs& a = args.output;
  bool whole = dtype != Dtype::kFloat32 && a.batches == 1 && !a.clipped && a.levels <= 256 &&
               a.inner % 8 == 0 && a.rows >= kLeastRows && a.rows < INT_MAX / 2 &&
               a.columns < INT_MAX / 2 && aligned16(args.x_codes, args.w_codes) && aligned16(a.y);
  for (int m = 0; m <= a.members.count; ++m) whole = whole && a.members.begin[m] % 32 == 0;
  return whole && is_hopper() && has_tensor_maps();
}

int64_t optical_linear_parts(const OpticalLinearArgs& a) {
  return int64_t{2} * a.output.members.count * blocks_of(grid_of(a));
}

cudaError_t launch_optical_linear(const OpticalLinearArgs& a, float* seen, Dtype dtype,
                                  cudaStream_t stream) {
  const bool half = dtype == Dtype::kFloat16;
  if (a.output.draws) {
    return half ? launch<__half, true>(a, seen, stream)
                : launch<__nv_bfloat16, true>(a, seen, stream);
  }
  return half ? launch<__half, false>(a, seen, stream)
              : launch<__nv_bfloat16, false>(a, seen, stream);
}

}  // namespace refract
