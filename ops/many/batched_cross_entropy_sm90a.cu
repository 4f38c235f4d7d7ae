// The output layer and its loss without the logits in memory. A block holds the rows of one model
// in shared memory and walks over the vocabulary: one warp brings in tiles of the weight,
// warpgroups of 64 rows each multiply them and keep, per row, the running maximum, the sum of
// exponentials and the target's logit in registers. Split operands are read as high and low parts
// and three products of them made.
#include <climits>
#include <cmath>

#include "ops/common/image/kernel_image.h"
#include "ops/common/tensor_map.h"
#include "ops/dense/loss/online_loss.cuh"
#include "ops/device/copy_engine.cuh"
#include "ops/device/wgmma.cuh"
#include "ops/many/batched_cross_entropy_kernel.h"

namespace refract {
namespace {

constexpr int64_t kIgnored = -100;
constexpr int kMostStages = 12;  // of the ring of weight tiles

// kGroups warpgroups of 64 rows; tiles of kColumns classes; the low part of split rows lies in
// shared memory, or with kStream comes again with every tile of the weight.
// kChunk numbers of the reduced dimension are a swizzled row of shared memory.
//
// Split operands take three passes over the reduced dimension, the small products first: tensor
// cores cut off what does not fit the accumulator, always toward zero, so that each of their steps
// takes half a unit in the last place of what is there. Two passes, with both products of the
// weight's high part in one, are 2 to 4% faster and shrink the logits twice as much.
template <class T_, bool kSplit_, bool kStream_, int kGroups_, int kColumns_, int kChunk_>
struct Shape {
  using T = T_;
  static constexpr int kChunk = kChunk_;
  static constexpr bool kSplit = kSplit_, kStream = kStream_;
  static constexpr int kGroups = kGroups_, kColumns = kColumns_;
  static constexpr int kRows = 64 * kGroups, kThreads = 128 * kGroups + 32;
  static constexpr int kPasses = kSplit ? 3 : 1;
  static constexpr int kResident = kSplit && !kStream ? 2 : 1;  // of the rows
  static constexpr int kRowsBytes = kRows * kChunk * 2, kWeightBytes = kColumns * kChunk * 2;
  static constexpr int kStageBytes = kWeightBytes + (kStream ? kRowsBytes : 0);

  // What a pass multiplies.
  static constexpr bool weight_low(int pass) { return kSplit && pass == 0; }
  static constexpr bool rows_low(int pass) { return kSplit && pass == 1; }
};

struct Task {
  int rows, classes, width, chunks, stages;
  const void* targets;
  bool wide_targets;
  float* loss;
  int32_t* correct;
};

struct Barriers {
  uint64_t rows, full[kMostStages], empty[kMostStages];
};

// The four threads of a row put together what they know; one writes it.
__device__ __forceinline__ void finish(const Task& task, OnlineRow row, int r, int64_t target) {
  float top = row.top, hit = row.hit, before = row.before;
#pragma unroll
  for (int lane = 1; lane < 4; lane *= 2) {
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, lane));
    hit = fmaxf(hit, __shfl_xor_sync(0xffffffff, hit, lane));
    before = fmaxf(before, __shfl_xor_sync(0xffffffff, before, lane));
  }
  float sum = (row.sum - row.lost) * exp2_fast((row.top - top) * kLog2E);
  sum += __shfl_xor_sync(0xffffffff, sum, 1);
  sum += __shfl_xor_sync(0xffffffff, sum, 2);
  if (r >= task.rows || threadIdx.x % 4 != 0) return;
  const int64_t at = static_cast<int64_t>(blockIdx.y) * task.rows + r;
  const bool known = target >= 0 && target < task.classes;
  // A target that is no class is a fault of the data: NaN stops the run at its next look.
  task.loss[at] = known ? (top - hit) + logf(sum) : target == kIgnored ? 0.0f : NAN;
  task.correct[at] = known && hit == top && before < hit;
}

__device__ __forceinline__ int64_t read_target(const Task& task, int r) {
  if (r >= task.rows) return kIgnored;
  return task.wide_targets ? static_cast<const int64_t*>(task.targets)[r]
                           : static_cast<const int32_t*>(task.targets)[r];
}

template <class S>
__device__ __forceinline__ void produce(const Task& task, const CUtensorMap* x,
                                        const CUtensorMap* weight, char* shared, char* ring,
                                        Barriers& barriers) {
  const int row = static_cast<int>(blockIdx.x) * S::kRows, model = static_cast<int>(blockIdx.y);
  hopper::arrive_expecting(&barriers.rows, S::kResident * task.chunks * S::kRowsBytes);
  for (int i = 0; i < S::kResident * task.chunks; ++i) {
    const int part = i / task.chunks, chunk = i % task.chunks;
    hopper::copy_box(shared + i * S::kRowsBytes, x, &barriers.rows,
                     part * 2 * task.width + chunk * S::kChunk, row, model);
  }
  hopper::Place place{0, 1};
  for (int first = 0; first < task.classes; first += S::kColumns) {
    for (int pass = 0; pass < S::kPasses; ++pass) {
      for (int chunk = 0; chunk < task.chunks; ++chunk) {
        uint64_t* full = &barriers.full[place.stage];
        char* stage = ring + place.stage * S::kStageBytes;
        const bool low = S::kStream && S::rows_low(pass);
        hopper::wait(&barriers.empty[place.stage], place.parity);
        hopper::arrive_expecting(full, S::kWeightBytes + (low ? S::kRowsBytes : 0));
        hopper::copy_box(stage, weight, full,
                         (S::weight_low(pass) ? task.width : 0) + chunk * S::kChunk, first, model);
        if (low) {
          hopper::copy_box(stage + S::kWeightBytes, x, full, 2 * task.width + chunk * S::kChunk,
                           row, model);
        }
        place.next(task.stages);
      }
    }
  }
}

// A warpgroup's walk along the ring.
template <class S>
struct Consumer {
  const Task& task;
  const char* rows;  // this warpgroup's, chunk after chunk
  const char* ring;
  int group;
  Barriers& barriers;
  hopper::Place next{}, held{};  // the stage to multiply, and the oldest that is not given back

  __device__ __forceinline__ void release() {
    if (threadIdx.x % 32 == 0) hopper::arrive(&barriers.empty[held.stage]);
    held.next(task.stages);
  }

  // Issues the products of the next stage.
  template <int kPass>
  __device__ __forceinline__ void multiply(float (&d)[S::kColumns / 2], int chunk) {
    const char* stage = ring + next.stage * S::kStageBytes;
    const char* x = rows + chunk * S::kRowsBytes;
    const char* low = S::kStream ? stage + S::kWeightBytes + group * (64 * S::kChunk * 2)
                                 : x + task.chunks * S::kRowsBytes;
    constexpr int kRow = 2 * S::kChunk;
    hopper::wait(&barriers.full[next.stage], next.parity);
    next.next(task.stages);
    wgmma::begin();
    const uint64_t a = wgmma::operand_of<kRow>(S::rows_low(kPass) ? low : x),
                   b = wgmma::operand_of<kRow>(stage);
#pragma unroll
    for (int i = 0; i < S::kChunk / 16; ++i) {
      // 16 columns are 32 bytes.
      wgmma::multiply_wide<typename S::T, S::kColumns>(d, a + 2 * i, b + 2 * i,
                                                       kPass > 0 || chunk > 0 || i > 0);
    }
    wgmma::commit();
  }
  // ... and gives back the stage before.
  template <int kPass>
  __device__ __forceinline__ void step(float (&d)[S::kColumns / 2], int chunk) {
    multiply<kPass>(d, chunk);
    wgmma::wait<1>();
    release();
  }
};

// A whole tile.
template <class S>
__device__ __forceinline__ void multiply_tile(Consumer<S>& walk, float (&d)[S::kColumns / 2]) {
  const int chunks = walk.task.chunks;
  walk.template multiply<0>(d, 0);
  for (int chunk = 1; chunk < chunks; ++chunk) walk.template step<0>(d, chunk);
  if constexpr (S::kSplit) {
    for (int chunk = 0; chunk < chunks; ++chunk) walk.template step<1>(d, chunk);
    for (int chunk = 0; chunk < chunks; ++chunk) walk.template step<2>(d, chunk);
  }
  wgmma::wait<0>();
  wgmma::keep(d);
  walk.release();
}

template <class S>
__device__ __forceinline__ void consume(Consumer<S>& walk, OnlineRow (&row)[2], int offset) {
  float d[S::kColumns / 2];
  for (int first = 0; first < walk.task.classes; first += S::kColumns) {
    multiply_tile(walk, d);
    mask_tile<S::kColumns>(d, first + offset, walk.task.classes);
    add_tile<S::kColumns>(row, d, first, offset);
  }
}

template <class S>
__global__ void __launch_bounds__(S::kThreads, 1)
    batched_head_kernel(const __grid_constant__ CUtensorMap x,
                        const __grid_constant__ CUtensorMap weight, Task task) {
  extern __shared__ __align__(1024) char shared[];
  __shared__ Barriers barriers;
  char* ring = shared + S::kResident * task.chunks * S::kRowsBytes;
  if (threadIdx.x == 0) {
    hopper::init_barrier(&barriers.rows, 1);
    for (int i = 0; i < task.stages; ++i) {
      hopper::init_barrier(&barriers.full[i], 1);
      hopper::init_barrier(&barriers.empty[i], 4 * S::kGroups);
    }
    hopper::fence_barrier_init();
  }
  __syncthreads();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == S::kGroups) {
    if (threadIdx.x % 32 == 0) produce<S>(task, &x, &weight, shared, ring, barriers);
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int r =
      static_cast<int>(blockIdx.x) * S::kRows + static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4;
  const int64_t target[2] = {read_target(task, r), read_target(task, r + 8)};
  OnlineRow row[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    row[i].target = target[i] >= 0 && target[i] < task.classes ? static_cast<int>(target[i]) : -64;
  }
  Consumer<S> walk{task, shared + group * (64 * S::kChunk * 2), ring, group, barriers};
  hopper::wait(&barriers.rows, 0);
  consume(walk, row, lane % 4 * 2);
  finish(task, row[0], r, target[0]);
  finish(task, row[1], r + 8, target[1]);
}

constexpr int kSharedBytes = 227 * 1024 - 512;  // less the barriers
constexpr int kLeastStages = 3;

template <class S>
int chunks_of(const BatchedHead& a) {
  return static_cast<int>((a.width + S::kChunk - 1) / S::kChunk);
}

// Weight tiles that fit beside the rows.
template <class S>
int stages_for(const BatchedHead& a) {
  const int left = kSharedBytes - S::kResident * chunks_of<S>(a) * S::kRowsBytes;
  return left < 0 ? 0 : left / S::kStageBytes < kMostStages ? left / S::kStageBytes : kMostStages;
}

int64_t columns_of(const BatchedHead& a) { return (a.split ? 3 : 1) * a.width; }

template <class S>
cudaError_t launch(const BatchedHead& a, cudaStream_t stream) {
  const int64_t columns = columns_of(a);
  CUtensorMap x, weight;
  if (!make_tensor_map(&x, a.dtype, {a.x, columns, a.rows, a.models, a.rows * columns}, S::kRows,
                       S::kChunk) ||
      !make_tensor_map(&weight, a.dtype,
                       {a.weight, columns, a.weight_rows, a.models, a.weight_stride}, S::kColumns,
                       S::kChunk)) {
    return cudaErrorInvalidValue;
  }
  const Task task{static_cast<int>(a.rows),
                  static_cast<int>(a.classes),
                  static_cast<int>(a.width),
                  chunks_of<S>(a),
                  stages_for<S>(a),
                  a.targets,
                  a.wide_targets,
                  a.loss,
                  a.correct};
  const int bytes = S::kResident * task.chunks * S::kRowsBytes + task.stages * S::kStageBytes;
  const auto kernel = batched_head_kernel<S>;
  if (auto e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes)) {
    return e;
  }
  const dim3 grid(static_cast<unsigned>((a.rows + S::kRows - 1) / S::kRows),
                  static_cast<unsigned>(a.models));
  kernel<<<grid, S::kThreads, bytes, stream>>>(x, weight, task);
  return cudaGetLastError();
}

// Calls f with the shape for these arguments; false where none fits. Four warpgroups on narrow rows
// hide the exponentials best, three on wider ones leave room for weight tiles, and rows so wide
// that both of their parts don't fit have the low one come with the weight. What this gives for
// split rows, multiples of 32 up to 608, stands in has_fused_split_head()
// (batched_cross_entropy.cpp) too.
template <class F>
bool with_shape(const BatchedHead& a, F f) {
  const auto attempt = [&](auto shape) {
    using S = decltype(shape);
    if (a.width % (S::kSplit ? S::kChunk : 8) != 0 || stages_for<S>(a) < kLeastStages) return false;
    f(shape);
    return true;
  };
  using Bf16 = __nv_bfloat16;
  if (a.split) {
    if (a.width <= 64) return attempt(Shape<Bf16, true, false, 4, 128, 32>());
    return attempt(Shape<Bf16, true, false, 3, 128, 32>()) ||
           attempt(Shape<Bf16, true, true, 2, 256, 32>());
  }
  if (a.dtype == Dtype::kBFloat16) {
    if (a.width <= 64) return attempt(Shape<Bf16, false, false, 4, 128, 32>());
    return attempt(Shape<Bf16, false, false, 3, 128, 64>()) ||
           attempt(Shape<Bf16, false, false, 2, 128, 64>());
  }
  if (a.width <= 64) return attempt(Shape<__half, false, false, 4, 128, 32>());
  return attempt(Shape<__half, false, false, 3, 128, 64>()) ||
         attempt(Shape<__half, false, false, 2, 128, 64>());
}

bool is_aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

bool can_fuse_batched_head(const BatchedHead& a) {
  constexpr int64_t kMostModels = 65535;  // a grid dimension
  return a.dtype != Dtype::kFloat32 && a.models > 0 && a.models <= kMostModels && a.rows > 0 &&
         a.rows < INT_MAX - 256 && a.weight_rows < INT_MAX - 256 && a.width > 0 &&
         a.weight_stride % 8 == 0 && a.weight_stride >= a.weight_rows * columns_of(a) &&
         is_aligned(a.x) && is_aligned(a.weight) && with_shape(a, [](auto) {}) &&
         has_hopper_image() && has_tensor_maps();
}

cudaError_t launch_batched_head(const BatchedHead& args, cudaStream_t stream) {
  cudaError_t error = cudaErrorInvalidValue;
  with_shape(args, [&](auto shape) { error = launch<decltype(shape)>(args, stream); });
  return error;
}

}  // namespace refract
