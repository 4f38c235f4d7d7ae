// An optical linear layer's product of codes with its noise, quantization, bias and range, without
// the product in memory. Blocks stay and go from tile to tile, and their warpgroups have roles: two
// warps bring in tiles of the operands by the copy engine, one each; two warpgroups take turns at
// the tensor cores, and while one multiplies its tile the other finishes what it holds in
// registers; the fourth draws the noise that they add. The two blocks of a cluster have the same
// columns, and each brings in half of the weight's tile for both.
#include <climits>

#include "ops/common/image/kernel_image.h"
#include "ops/common/tensor_map.h"
#include "ops/device/wgmma.cuh"
#include "ops/optical/linear/linear_output.cuh"

namespace refract {
namespace optical::linear {
namespace {

// Named barriers of the hardware.
constexpr int kGroupBarrier = 1, kTurnBarrier = kGroupBarrier + kGroups,
              kConsumersBarrier = kTurnBarrier + kGroups;

__device__ __forceinline__ void sync_threads(int barrier, int threads) {
  asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory");
}
// The consumers multiply in turn, so that each finds the ring's barriers in the lap that it expects
// and has the tensor cores to itself. This is a barrier among a warpgroup's threads too.
__device__ __forceinline__ void wait_for_turn(int group) {
  sync_threads(kTurnBarrier + group, kConsumers);
}
__device__ __forceinline__ void give_turn(int group) {
  asm volatile("bar.arrive %0, %1;" ::"r"(kTurnBarrier + group), "n"(kConsumers) : "memory");
}

// Goes through the ring for all tiles of the block, a whole warp; copy(tile, chunk, stage): called
// by one of its threads once a stage is free in both blocks.
template <class F>
__device__ __forceinline__ void fill(const OpticalMembers& members, const Grid& grid,
                                     Shared& shared, F copy) {
  const uint32_t empty = shared_address(shared.empty);
  hopper::Place place;
  for (Walk walk(members, grid, 0, 1); walk.more(); walk.next()) {
    const Tile tile = walk.tile();
    for (int chunk = 0; chunk < grid.chunks; ++chunk) {
      const auto stage = static_cast<uint32_t>(place.stage);
      hopper::wait_at(empty + 8 * stage, place.parity ^ 1);
      if (hopper::elect()) copy(tile, chunk, stage);
      place.next(kStages);
    }
  }
}

// Brings in the operands: one warp the rows of x, another this block's half of the weight's.
__device__ __forceinline__ void produce(const CUtensorMap* x, const CUtensorMap* weight,
                                        const OpticalMembers& members, const Grid& grid,
                                        const char* bytes, Shared& shared) {
  const uint32_t ring = shared_address(bytes), full = shared_address(shared.full);
  const int warp = __shfl_sync(kFullWarp, (static_cast<int>(threadIdx.x) - kProducer) / 32, 0);
  if (warp == 0) {
    fill(members, grid, shared, [&](const Tile& tile, int chunk, uint32_t stage) {
      hopper::arrive_expecting_at(full + 8 * stage, kStageBytes);
      hopper::copy_box_at(ring + stage * kStageBytes, x, full + 8 * stage, chunk * kChunk, tile.row,
                          0);
    });
  } else if (warp == 1) {
    const uint32_t rank = hopper::cluster_rank();
    const uint32_t half = ring + kRowsBytes + rank * (kWeightBytes / kCluster);
    fill(members, grid, shared, [&](const Tile& tile, int chunk, uint32_t stage) {
      hopper::copy_spread_rows_at(
          half + stage * kStageBytes, weight, full + 8 * stage, chunk * kChunk,
          tile.column / 32 + static_cast<int>(rank) * (kColumns / 32 / kCluster),
          (1 << kCluster) - 1);
    });
  }
}

// Draws the noise of all tiles of the block, a row a thread.
__device__ __forceinline__ void draw(const OpticalOutputArgs& a, const Grid& grid, char* slots,
                                     Shared& shared) {
  const Now now = now_of(a.clock);
  const int64_t first = first_row(a, now);
  const int row = static_cast<int>(threadIdx.x) - kDrawer;
  int group = 0;
  for (Walk walk(a.members, grid, 0, 1); walk.more(); walk.next(), group ^= 1) {
    const Tile tile = walk.tile();
    const PhiloxKey key = shared.member[tile.member].key;
    const auto element =
        (first + tile.row + row) * (tile.end - tile.begin) + tile.column - tile.begin;
    const uint64_t block = static_cast<uint64_t>(element) >> 3;
    for (int i = 0; i < kColumns / kStep; ++i) {
      char* slot = slots + (group * kSlots + i % kSlots) * kSlotBytes;
      hopper::wait(&shared.used[group][i % kSlots], static_cast<uint32_t>(i / kSlots) ^ 1);
#pragma unroll
      for (int q = 0; q < kStep / kVector; ++q) {
        const PhiloxBlock b =
            noise_block(key, now.step, block + static_cast<uint64_t>(i * (kStep / kVector) + q));
        *reinterpret_cast<uint4*>(slot + place_of_noise(row, q)) =
            make_uint4(b.word[0], b.word[1], b.word[2], b.word[3]);
      }
      __syncwarp();
      if (threadIdx.x % 32 == 0) hopper::arrive(&shared.drawn[group][i % kSlots]);
    }
  }
}

// What a consumer needs of the ring, as the instructions take it: the loop over it has few cycles
// for anything but products, since the other consumer takes its share of the issue slots.
struct Ring {
  uint32_t full, empty;  // addresses of the first stage's barriers, `empty` in a block that
  bool releases;         // this lane tells that a stage is free
  uint64_t upper, lower, columns;  // operands of the first stage

  __device__ __forceinline__ Ring(const char* ring, Shared& shared) {
    const uint32_t lane = threadIdx.x % 32;
    releases = lane < kCluster;
    full = shared_address(shared.full);
    empty = hopper::address_at(shared.empty, releases ? lane : 0);
    upper = wgmma::operand_of<128>(ring);
    lower = wgmma::operand_of<128>(ring + 64 * kChunk * 2);
    columns = wgmma::operand_of<128>(ring + kRowsBytes);
  }
  // A stage is free again once the consumers of both blocks have read it.
  __device__ __forceinline__ void release(int stage) const {
    if (releases) hopper::arrive_at(empty + 8 * static_cast<uint32_t>(stage));
  }
};

// then(): called once all products are on their way.
template <class F>
__device__ __forceinline__ void multiply(Sums& d, int chunks, const Ring& ring,
                                         hopper::Place& place, F then) {
  int held = 0;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    hopper::wait_at(ring.full + 8 * static_cast<uint32_t>(place.stage), place.parity);
    const auto at = static_cast<uint64_t>(place.stage * (kStageBytes / 16));
    const uint64_t a = ring.upper + at, a2 = ring.lower + at, b = ring.columns + at;
    wgmma::begin();
#pragma unroll
    for (int i = 0; i < kChunk / 16; ++i) {  // 16 columns are 32 bytes
      wgmma::multiply_wide<__half, kColumns>(d[0], a + 2 * i, b + 2 * i, chunk > 0 || i > 0);
      wgmma::multiply_wide<__half, kColumns>(d[1], a2 + 2 * i, b + 2 * i, chunk > 0 || i > 0);
    }
    wgmma::commit();
    wgmma::wait<1>();
    if (chunk > 0) ring.release(held);
    held = place.stage;
    place.next(kStages);
  }
  then();
  wgmma::wait<0>();
  wgmma::keep(d[0]);
  wgmma::keep(d[1]);
  ring.release(held);
}

// What the outputs of a column are made with, from the sum of its codes; a thread a column.
__device__ __forceinline__ void set_column(Columns& columns, int own, const Member& m,
                                           float column_sum, float bias) {
  const float term = add(mul(m.column_gain, column_sum), m.constant);
  columns.term[own] = term;
  columns.base[own] = __fmaf_rn(term, 0.0f, m.lo + bias);
}

// Keeps what a warp saw of a member.
__device__ __forceinline__ void keep_seen(Shared& shared, int member, Range seen) {
  seen = warp_range(seen);
  Range& kept = shared.seen[member][threadIdx.x / 32];
  if (threadIdx.x % 32 == 0) kept = merge(kept, seen);
}

template <class T, bool kDraws>
__device__ __forceinline__ void consume(const OpticalOutputArgs& a, const Grid& grid,
                                        const char* shared_bytes, Shared& shared) {
  // From one lane, so that what follows from it is known to be the same in a whole warp.
  const int group = __shfl_sync(kFullWarp, static_cast<int>(threadIdx.x) / 128, 0);
  const int own = static_cast<int>(threadIdx.x) % 128;
  const int own_row = own / 32 * 16 + own % 32 / 4;
  const Ring ring(shared_bytes, shared);
  const Noise noise{
      shared_bytes + kRingBytes + group * kSlots * kSlotBytes + place_of_noise(own_row, own % 4),
      shared.drawn[group], shared.used[group]};
  hopper::Place place;
  place.skip(group * grid.chunks, kStages);
  if (group > 0) give_turn(0);
  Range seen = unset_range();
  int member = 0;  // whose values were seen
  for (Walk walk(a.members, grid, group, kGroups); walk.more(); walk.next()) {
    const Tile tile = walk.tile();
    const bool has = tile.column + own < tile.end;
    const float column_sum = has ? a.column_sums[tile.column + own] : NAN;
    const float bias = has && a.bias != nullptr
                           ? to_float(static_cast<const T*>(a.bias)[tile.column + own])
                           : 0.0f;
    const int row = tile.row + own_row;
    float row_term[kHeld];
#pragma unroll
    for (int r = 0; r < kHeld; ++r) {
      // NaN for a row that is not there, so that its values enter no range.
      row_term[r] = row + row_offset(r) < a.rows ? a.row_sums[row + row_offset(r)] : NAN;
    }
    if (a.train && tile.member != member) {
      keep_seen(shared, member, seen);
      seen = unset_range();
    }
    member = tile.member;
    Sums d;
    wait_for_turn(group);
    multiply(d, grid.chunks, ring, place, [&] {
      if (walk.followed()) give_turn(1 - group);
    });
    place.skip((kGroups - 1) * grid.chunks, kStages);
    const Member& m = shared.member[member];
    set_column(shared.columns[group], own, m, column_sum, bias);
#pragma unroll
    for (float& term : row_term) term *= m.row_gain;
    sync_threads(kGroupBarrier + group, 128);
    write_outputs<T, kDraws>(Outputs<T>(a, tile, row), Levels(m, a.shared), shared.columns[group],
                             noise, d, row_term, seen);
  }
  if (a.train) keep_seen(shared, member, seen);
}

// What a block saw goes to its parts; the last block moves the ranges.
__device__ __forceinline__ void tell(const OpticalOutputArgs& a, float* parts, Shared& shared) {
  sync_threads(kConsumersBarrier, kConsumers);
  if (threadIdx.x < a.members.count) {
    Range seen = unset_range();
#pragma unroll
    for (const Range& r : shared.seen[threadIdx.x]) seen = merge(seen, r);
    store_range(parts + 2 * (threadIdx.x * gridDim.x + blockIdx.x), seen);
  }
  __syncwarp();
  if (threadIdx.x == 0) shared.last = is_last(a.ticket, gridDim.x);
  sync_threads(kConsumersBarrier, kConsumers);
  if (!shared.last) return;
  move_ranges(a, nullptr, parts, [](int member) {
    return Parts{static_cast<int64_t>(member) * gridDim.x, gridDim.x};
  });
}

__device__ __forceinline__ void init_barriers(Shared& shared) {
  for (int i = 0; i < kStages; ++i) {
    hopper::init_barrier(&shared.full[i], 1);
    hopper::init_barrier(&shared.empty[i], 4 * kCluster);
  }
  for (int i = 0; i < kGroups * kSlots; ++i) {
    hopper::init_barrier(&shared.drawn[0][i], 4);
    hopper::init_barrier(&shared.used[0][i], 4);
  }
  hopper::fence_barrier_init();
}

template <class T, bool kDraws>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kBlockThreads, 1)
    linear_kernel(const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap weight,
                  const __grid_constant__ OpticalOutputArgs a, float* parts,
                  const __grid_constant__ Grid grid) {
  extern __shared__ __align__(1024) char bytes[];
  __shared__ Shared shared;
  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) init_barriers(shared);
  if (thread < kOpticalMembers * kWarps)
    shared.seen[thread / kWarps][thread % kWarps] = unset_range();
  wait_for_earlier();
  if (thread < a.members.count) shared.member[thread] = Member(a, thread);
  __syncthreads();
  hopper::cluster_start();
  // The launch gives each thread 128 registers; consumers, who hold the sums, get those of others.
  if (thread >= kDrawer) {
    wgmma::give_registers<40>();
    if (kDraws) draw(a, grid, bytes + kRingBytes, shared);
  } else if (thread >= kProducer) {
    wgmma::give_registers<24>();
    produce(&x, &weight, a.members, grid, bytes, shared);
  } else {
    wgmma::take_registers<224>();
    consume<T, kDraws>(a, grid, bytes, shared);
    if (a.train) tell(a, parts, shared);
  }
  hopper::cluster_end();  // no block may go while the other one signals to it
}

Grid grid_of(const OpticalLinearArgs& args) {
  const OpticalOutputArgs& a = args.output;
  Grid g{static_cast<int>((a.inner + kChunk - 1) / kChunk),
         static_cast<int>((a.rows + kRows * kCluster - 1) / (kRows * kCluster)), 0};
  for (int m = 0; m < a.members.count; ++m) {
    g.column_tiles += static_cast<int>(tiles_of<kColumns>(a.members, m));
  }
  return g;
}

// As many blocks as the device holds, or as there are tiles.
int blocks_of(const Grid& grid, int multiprocessors) {
  const int most = multiprocessors / kCluster;
  return kCluster * (grid.tiles() < most ? grid.tiles() : most);
}

template <class T, bool kDraws>
cudaError_t launch(const OpticalLinearArgs& args, float* seen, int multiprocessors,
                   cudaStream_t stream) {
  const OpticalOutputArgs& a = args.output;
  CUtensorMap x, weight;
  if (!make_tensor_map(&x, Dtype::kFloat16, {args.x_codes, a.inner, a.rows, 1, a.rows * a.inner},
                       kRows, kChunk) ||
      !make_spread_rows_map(&weight, args.w_codes, a.inner, a.columns, kColumns / kCluster)) {
    return cudaErrorInvalidValue;
  }
  const auto kernel = linear_kernel<T, kDraws>;
  if (auto e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                    kDynamicBytes)) {
    return e;
  }
  const Grid grid = grid_of(args);
  const dim3 blocks(static_cast<unsigned>(blocks_of(grid, multiprocessors)));
  return launch_overlapped(kernel, {blocks, kBlockThreads, kDynamicBytes}, stream, x, weight, a,
                           seen, grid);
}

}  // namespace
}  // namespace optical::linear

bool can_fuse_optical_linear(const OpticalLinearArgs& args, Dtype dtype) {
  constexpr int64_t kLeastRows = 512;  // fewer don't fill the device with tiles
  const OpticalOutputArgs& a = args.output;
  bool whole = dtype != Dtype::kFloat32 && a.batches == 1 && !a.clipped && a.levels <= 256 &&
               a.inner % 8 == 0 && a.rows >= kLeastRows && a.rows < INT_MAX / 2 &&
               a.columns < INT_MAX / 2 && aligned16(args.x_codes, args.w_codes) && aligned16(a.y);
  for (int m = 0; m <= a.members.count; ++m) whole = whole && a.members.begin[m] % 32 == 0;
  return whole && has_hopper_image() && has_tensor_maps();
}

int64_t optical_linear_parts(const OpticalLinearArgs& a, int multiprocessors) {
  using namespace optical::linear;
  return int64_t{2} * a.output.members.count * blocks_of(grid_of(a), multiprocessors);
}

cudaError_t launch_optical_linear(const OpticalLinearArgs& a, float* seen, Dtype dtype,
                                  int multiprocessors, cudaStream_t stream) {
  using namespace optical::linear;
  const bool half = dtype == Dtype::kFloat16;
  if (a.output.draws) {
    return half ? launch<__half, true>(a, seen, multiprocessors, stream)
                : launch<__nv_bfloat16, true>(a, seen, multiprocessors, stream);
  }
  return half ? launch<__half, false>(a, seen, multiprocessors, stream)
              : launch<__nv_bfloat16, false>(a, seen, multiprocessors, stream);
}

}  // namespace refract
