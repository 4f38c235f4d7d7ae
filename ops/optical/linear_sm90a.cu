// An optical linear layer's product of codes with its noise, quantization, bias and range, without
// the product in memory. One warp of a block brings in tiles of both operands by the copy engine,
// two warpgroups of 64 rows each multiply them and finish what they hold in registers, while the
// other block of the multiprocessor multiplies.
#include <climits>

#include "ops/common/hopper.cuh"
#include "ops/common/tensor_map.h"
#include "ops/optical/linear_kernel.h"
#include "ops/optical/product_output.cuh"

namespace refract {
namespace {

using optical::Range;

constexpr int kChunk = 64;  // of the reduced dimension: a swizzled row of shared memory
constexpr int kGroups = 2, kRows = 64 * kGroups, kColumns = 128;  // of a tile
constexpr int kConsumers = 128 * kGroups, kBlockThreads = kConsumers + 32;
constexpr int kStages = 3, kBlocks = 2;  // of the ring; per multiprocessor
constexpr int kRowsBytes = kRows * kChunk * 2, kWeightBytes = kColumns * kChunk * 2;
constexpr int kStageBytes = kRowsBytes + kWeightBytes;
constexpr int kBand = 16;   // tiles of rows that are gone through together, for the L2 cache
constexpr int kVector = 8;  // columns that a thread holds side by side, and that share noise
static_assert(kConsumers == optical::kThreads, "move_ranges() is theirs");

struct Grid {
  int chunks, row_tiles, column_tiles;
};

// What all threads of a block need for its outputs.
struct Shared {
  uint64_t full[kStages], empty[kStages];
  optical::Quantizer quantizer;
  optical::Mix mix;
  // What a column adds to its values, and what its results start from.
  alignas(16) float term[kColumns], base[kColumns];
  Range seen[optical::kWarps];
  bool last;
};

struct Tile {
  int row, column, member;  // of all rows and columns
  int column_end;           // of the member
  int64_t part;             // of `seen`

  __device__ __forceinline__ Tile(const OpticalMembers& m, const Grid& g) {
    const int band = static_cast<int>(blockIdx.x) / (kBand * g.column_tiles);
    const int in_band = static_cast<int>(blockIdx.x) % (kBand * g.column_tiles);
    const int left = g.row_tiles - band * kBand, rows = left < kBand ? left : kBand;
    const int row_tile = band * kBand + in_band % rows, column_tile = in_band / rows;
    int tile = column_tile, tiles;
    member = 0;
    while (tile >= (tiles = static_cast<int>(optical::tiles_of<kColumns>(m, member)))) {
      tile -= tiles;
      ++member;
    }
    row = row_tile * kRows;
    column = static_cast<int>(m.begin[member]) + tile * kColumns;
    column_end = static_cast<int>(m.begin[member + 1]);
    part = static_cast<int64_t>(column_tile) * g.row_tiles + row_tile;
  }
};

__device__ __forceinline__ void sync_consumers() {
  asm volatile("bar.sync 1, %0;" ::"n"(kConsumers) : "memory");
}

__device__ __forceinline__ void produce(const CUtensorMap* x, const CUtensorMap* weight,
                                        const Tile& tile, int chunks, char* ring, Shared& shared) {
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int stage = chunk % kStages;
    const uint32_t lap = static_cast<uint32_t>(chunk / kStages) & 1;
    char* at = ring + stage * kStageBytes;
    hopper::wait(&shared.empty[stage], lap ^ 1);
    hopper::arrive_expecting(&shared.full[stage], kStageBytes);
    hopper::copy_box(at, x, &shared.full[stage], chunk * kChunk, tile.row, 0);
    hopper::copy_spread_rows(at + kRowsBytes, weight, &shared.full[stage], chunk * kChunk,
                             tile.column / 32);
  }
}

// d = this warpgroup's 64 rows times all columns.
__device__ __forceinline__ void multiply(float (&d)[kColumns / 2], int group, int chunks,
                                         const char* ring, Shared& shared) {
  for (int chunk = 0; chunk < chunks; ++chunk) {
    const int stage = chunk % kStages;
    hopper::wait(&shared.full[stage], static_cast<uint32_t>(chunk / kStages) & 1);
    const char* at = ring + stage * kStageBytes;
    const uint64_t a = hopper::operand<128>(at + group * (64 * kChunk * 2)),
                   b = hopper::operand<128>(at + kRowsBytes);
    hopper::wgmma_begin();
#pragma unroll
    for (int i = 0; i < kChunk / 16; ++i) {  // 16 columns are 32 bytes
      hopper::wgmma<__half, kColumns>(d, a + 2 * i, b + 2 * i, chunk > 0 || i > 0);
    }
    hopper::wgmma_commit();
    hopper::wgmma_wait<1>();
    if (chunk > 0 && threadIdx.x % 32 == 0) hopper::arrive(&shared.empty[(chunk - 1) % kStages]);
  }
  hopper::wgmma_wait<0>();
  hopper::keep(d);
}

// Where a thread's outputs lie in the noise stream and in memory: its rows are `row` and row + 8.
template <class T>
struct Outputs {
  const OpticalOutputArgs& a;
  int row, column, column_end, member;
  uint64_t first, step;
  int64_t width;

  __device__ __forceinline__ Outputs(const OpticalOutputArgs& args, const Tile& tile)
      : a(args),
        row(tile.row + static_cast<int>(threadIdx.x) / 32 * 16 +
            static_cast<int>(threadIdx.x) % 32 / 4),
        column(tile.column + static_cast<int>(threadIdx.x) % 4 * kVector),
        column_end(tile.column_end),
        member(tile.member),
        width(tile.column_end - args.members.begin[tile.member]) {
    const optical::Now now = optical::now_of(a.clock);
    step = now.step;
    first = now.slice * static_cast<uint64_t>(a.rows / a.slices * width) +
            static_cast<uint64_t>(column - a.members.begin[member]);
  }
  __device__ __forceinline__ bool holds(int half) const { return row + 8 * half < a.rows; }
  __device__ __forceinline__ float row_sum(int half) const {
    return holds(half) ? a.row_sums[row + 8 * half] : 0.0f;
  }
  __device__ __forceinline__ PhiloxBlock draw(int half, int offset) const {
    const uint64_t index = first + static_cast<uint64_t>((row + 8 * half) * width + offset);
    return philox(a.key[member], step, index >> 3);
  }
  __device__ __forceinline__ T* at(int half, int offset) const {
    return static_cast<T*>(a.y) + static_cast<int64_t>(row + 8 * half) * a.columns + column +
           offset;
  }
};

// Eight outputs side by side, from their products. Clamping is the multiply-add's own saturation,
// which makes 0 of a NaN: `base` carries that of a column, the caller that of a row.
template <class T, bool kDraws>
__device__ __forceinline__ Vec<T, kVector> finish(const float (&product)[kVector], float row_term,
                                                  const Shared& shared, int column,
                                                  const PhiloxBlock& drawn, float noise,
                                                  Range& seen) {
  const optical::Quantizer& q = shared.quantizer;
  const float share = q.scale / q.top, offset = -q.lo * share;
  Vec<T, kVector> out;
#pragma unroll
  for (int j = 0; j < kVector; ++j) {
    const float value = __fmaf_rn(shared.mix.gain, product[j], row_term + shared.term[column + j]);
    seen = optical::include(seen, value);
    const float xi = kDraws ? optical::noise_of_half(drawn.word[j / 2], j % 2 != 0) : noise;
    const float place = __saturatef(__fmaf_rn(value, share, offset));
    const float level = optical::round_even(__fmaf_rn(place, q.top, xi));
    out.at[j] = from_float<T>(__fmaf_rn(level, q.step, shared.base[column + j]));
  }
  return out;
}

template <class T, bool kDraws>
__device__ __forceinline__ Range write_outputs(const Outputs<T>& outputs, const Shared& shared,
                                               const float (&d)[kColumns / 2],
                                               const float (&row_sum)[2]) {
  Range seen = optical::unset_range();
#pragma unroll
  for (int i = 0; i < kColumns / 32; ++i) {
    if (outputs.column + 32 * i >= outputs.column_end) break;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!outputs.holds(half)) continue;
      float product[kVector];
#pragma unroll
      for (int j = 0; j < kVector; ++j) product[j] = d[16 * i + j / 2 * 4 + 2 * half + j % 2];
      const float row_term = shared.mix.row_gain * row_sum[half];
      PhiloxBlock drawn{};
      if (kDraws) drawn = outputs.draw(half, 32 * i);
      const int column = static_cast<int>(threadIdx.x) % 4 * kVector + 32 * i;
      auto out =
          finish<T, kDraws>(product, row_term, shared, column, drawn, outputs.a.shared, seen);
      if (!(fabsf(row_term) < INFINITY)) {
#pragma unroll
        for (int j = 0; j < kVector; ++j) out.at[j] = from_float<T>(NAN);
      }
      store_vec(outputs.at(half, 32 * i), out);
    }
  }
  return seen;
}

// What a block saw goes to its part; the last block moves the ranges.
__device__ __forceinline__ void tell(const OpticalOutputArgs& a, const Tile& tile, const Grid& grid,
                                     Range seen, float* parts, Shared& shared) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    seen = optical::merge(seen, {__shfl_xor_sync(kFullWarp, seen.lo, offset),
                                 __shfl_xor_sync(kFullWarp, seen.hi, offset)});
  }
  if (threadIdx.x % 32 == 0) shared.seen[threadIdx.x / 32] = seen;
  sync_consumers();
  if (threadIdx.x == 0) {
#pragma unroll
    for (int w = 1; w < optical::kWarps; ++w) seen = optical::merge(seen, shared.seen[w]);
    optical::store_range(parts + 2 * tile.part, seen);
    shared.last = optical::is_last(a.ticket, gridDim.x);
  }
  sync_consumers();
  if (shared.last) optical::move_ranges<kColumns>(a, nullptr, parts, grid.row_tiles);
}

template <class T, bool kDraws>
__global__ void __launch_bounds__(kBlockThreads, kBlocks)
    linear_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                  const __grid_constant__ OpticalOutputArgs a, float* parts, Grid grid) {
  extern __shared__ __align__(1024) char ring[];
  __shared__ Shared shared;
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      hopper::init_barrier(&shared.full[i], 1);
      hopper::init_barrier(&shared.empty[i], 4 * kGroups);
    }
    hopper::fence_barrier_init();
  }
  const Tile tile(a.members, grid);
  optical::wait_for_earlier();
  __syncthreads();
  if (threadIdx.x >= kConsumers) {
    if (threadIdx.x % 32 == 0) produce(&x, &weight, tile, grid.chunks, ring, shared);
    return;
  }
  if (threadIdx.x == 0) {
    shared.quantizer =
        optical::quantizer(optical::load_range(a.members.range[tile.member]), a.levels, 0.0f);
  }
  if (threadIdx.x == 32) shared.mix = optical::mix_of(a, tile.member);
  const Outputs<T> outputs(a, tile);
  const int own = tile.column + static_cast<int>(threadIdx.x);
  const bool has = threadIdx.x < kColumns && own < tile.column_end;
  const float column_sum = has ? a.column_sums[own] : 0.0f;
  const float bias = has && a.bias != nullptr ? to_float(static_cast<const T*>(a.bias)[own]) : 0.0f;
  const float row_sum[2] = {outputs.row_sum(0), outputs.row_sum(1)};
  float d[kColumns / 2];
  multiply(d, static_cast<int>(threadIdx.x) / 128, grid.chunks, ring, shared);
  sync_consumers();
  if (threadIdx.x < kColumns) {
    const float term =
        optical::add(optical::mul(shared.mix.column_gain, column_sum), shared.mix.constant);
    shared.term[threadIdx.x] = term;
    shared.base[threadIdx.x] = __fmaf_rn(term, 0.0f, shared.quantizer.lo + bias);
  }
  sync_consumers();
  const Range seen = write_outputs<T, kDraws>(outputs, shared, d, row_sum);
  if (a.train) tell(a, tile, grid, seen, parts, shared);
}

Grid grid_of(const OpticalLinearArgs& args) {
  const OpticalOutputArgs& a = args.output;
  Grid g{static_cast<int>((a.inner + kChunk - 1) / kChunk),
         static_cast<int>((a.rows + kRows - 1) / kRows), 0};
  for (int m = 0; m < a.members.count; ++m) {
    g.column_tiles += static_cast<int>(optical::tiles_of<kColumns>(a.members, m));
  }
  return g;
}

template <class T, bool kDraws>
cudaError_t launch(const OpticalLinearArgs& args, float* seen, cudaStream_t stream) {
  const OpticalOutputArgs& a = args.output;
  CUtensorMap x, weight;
  if (!make_tensor_map(&x, Dtype::kFloat16, {args.x_codes, a.inner, a.rows, 1, a.rows * a.inner},
                       kRows, kChunk) ||
      !make_spread_rows_map(&weight, args.w_codes, a.inner, a.columns, kColumns)) {
    return cudaErrorInvalidValue;
  }
  const auto kernel = linear_kernel<T, kDraws>;
  constexpr int kBytes = kStages * kStageBytes;
  if (auto e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes)) {
    return e;
  }
  const Grid grid = grid_of(args);
  const dim3 blocks(static_cast<unsigned>(grid.row_tiles * grid.column_tiles));
  return optical::launch_overlapped(kernel, {blocks, kBlockThreads, kBytes}, stream, x, weight, a,
                                    seen, grid);
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
  const Grid grid = grid_of(a);
  return int64_t{2} * grid.row_tiles * grid.column_tiles;
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
