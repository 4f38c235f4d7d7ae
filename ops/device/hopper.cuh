// Hopper's own instructions (sm_90a) as functions: bulk tensor copies that complete on an mbarrier,
// and the matrix product of a warpgroup (wgmma). Only for files named x_sm90a.cu.
#pragma once
#include <cuda.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace refract::hopper {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

__device__ __forceinline__ void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)),
               "r"(arrivals)
               : "memory");
}
// Makes initialized barriers visible to the copy engine; before the block's barrier.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier))
               : "memory");
}
__device__ __forceinline__ void arrive_expecting_at(uint32_t barrier_address, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier_address),
               "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, int bytes) {
  arrive_expecting_at(shared_address(barrier), bytes);
}
__device__ __forceinline__ void wait_at(uint32_t barrier_address, uint32_t parity) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n"
      "}" ::"r"(barrier_address),
      "r"(parity)
      : "memory");
}
__device__ __forceinline__ void wait(uint64_t* barrier, uint32_t parity) {
  wait_at(shared_address(barrier), parity);
}

// `bytes` neighbouring bytes to shared memory; addresses and size are multiples of 16.
__device__ __forceinline__ void copy_bytes(void* to, const void* from, int bytes,
                                           uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
}

// The box of a three-dimensional map at (column, row, slice) to shared memory.
__device__ __forceinline__ void copy_box_at(uint32_t to, const CUtensorMap* map,
                                            uint32_t barrier_address, int column, int row,
                                            int slice) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes"
      " [%0], [%1, {%2, %3, %4}], [%5];" ::"r"(to),
      "l"(map), "r"(column), "r"(row), "r"(slice), "r"(barrier_address)
      : "memory");
}
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap* map, uint64_t* barrier,
                                         int column, int row, int slice) {
  copy_box_at(shared_address(to), map, shared_address(barrier), column, row, slice);
}

// The box of a map of make_spread_rows_map() at (column, 32 * block), to the same place of each
// block of the cluster whose bit is set; each one's barrier counts the bytes.
__device__ __forceinline__ void copy_spread_rows_at(uint32_t to, const CUtensorMap* map,
                                                    uint32_t barrier_address, int column, int block,
                                                    int blocks_mask) {
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes"
      ".multicast::cluster [%0], [%1, {%2, %3, %3, %3, %4}], [%5], %6;" ::"r"(to),
      "l"(map), "r"(column), "r"(0), "r"(block), "r"(barrier_address),
      "h"(static_cast<uint16_t>(blocks_mask))
      : "memory");
}

// Where in a ring of stages one is; the parity of a stage's barriers flips with every lap.
struct Place {
  int stage = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next(int stages) {
    if (++stage == stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  __device__ __forceinline__ void skip(int count, int stages) {
    stage += count % stages;
    parity ^= static_cast<uint32_t>(count / stages) & 1;
    if (stage >= stages) {
      stage -= stages;
      parity ^= 1;
    }
  }
};

// True in one thread of a warp that is here as a whole.
__device__ __forceinline__ bool elect() {
  uint32_t elected;
  asm volatile("{\n.reg .pred p;\nelect.sync _|p, 0xffffffff;\nselp.b32 %0, 1, 0, p;\n}"
               : "=r"(elected));
  return elected != 0;
}

// ---- Clusters

__device__ __forceinline__ uint32_t cluster_rank() {
  uint32_t rank;
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of all blocks of the cluster, once barriers were made: orders no memory but what
// fence_barrier_init() does.
__device__ __forceinline__ void cluster_start() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;\nbarrier.cluster.wait.aligned;" ::
                   : "memory");
}
// The same at the end: what a block has sent to another one has come before either goes.
__device__ __forceinline__ void cluster_end() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}
// The address of the same place in the shared memory of the cluster's block `rank`.
__device__ __forceinline__ uint32_t address_at(const void* p, uint32_t rank) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(p)), "r"(rank));
  return address;
}
// At a barrier of another block, by address_at(). Without a release at cluster scope, which would
// wait for all of the thread's stores: for those who have only read.
__device__ __forceinline__ void arrive_at(uint32_t barrier_address) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier_address) : "memory");
}

// A warpgroup's registers, from what the launch gave each thread: fewer, or more once others have
// given theirs.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

__device__ __forceinline__ void wgmma_begin() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// No read of the accumulators is moved in front of the wait before this.
template <int N>
__device__ __forceinline__ void keep(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Rows of kBytes along the reduced dimension, swizzled in atoms of 8 rows, one after the other.
template <int kBytes>
__device__ __forceinline__ uint64_t operand(const void* p) {
  static_assert(kBytes == 128 || kBytes == 64, "the two swizzles in use");
  constexpr uint64_t kAtom = 8 * kBytes >> 4, kSwizzle = kBytes == 128 ? 1 : 2;
  return (shared_address(p) & 0x3FFFF) >> 4 | uint64_t{1} << 16 | kAtom << 32 | kSwizzle << 62;
}

#define REFRACT_F8(i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define REFRACT_F32(i) REFRACT_F8(i), REFRACT_F8(i + 8), REFRACT_F8(i + 16), REFRACT_F8(i + 24)

#define REFRACT_WGMMA_128(type)                                                          \
  asm volatile(                                                                          \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                       \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                       \
      " {"                                                                               \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"   \
      "}, %64, %65, p, 1, 1, 0, 0;\n}"                                                   \
      : REFRACT_F32(0), REFRACT_F32(32)                                                  \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))

#define REFRACT_WGMMA_256(type)                                                                    \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                                \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                 \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "           \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "           \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "           \
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "           \
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "           \
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "     \
      "%111, "                                                                                     \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
      "%127"                                                                                       \
      "}, %128, %129, p, 1, 1, 0, 0;\n}"                                                           \
      : REFRACT_F32(0), REFRACT_F32(32), REFRACT_F32(64), REFRACT_F32(96)                          \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))

template <class T>
constexpr bool kIsBfloat16 = sizeof(T) == 2;
template <>
inline constexpr bool kIsBfloat16<__half> = false;

// d [64, N] (+)= a [64, 16] . b [N, 16]^T, asynchronous; the operands in shared memory.
template <class T, int N>
__device__ __forceinline__ void wgmma(float (&d)[N / 2], uint64_t a, uint64_t b, bool accumulate) {
  static_assert(N == 128 || N == 256, "a form for each width");
#define REFRACT_CASE(n)             \
  if constexpr (N == n) {           \
    if constexpr (kIsBfloat16<T>) { \
      REFRACT_WGMMA_##n("bf16");    \
    } else {                        \
      REFRACT_WGMMA_##n("f16");     \
    }                               \
  }
  REFRACT_CASE(128)
  REFRACT_CASE(256)
#undef REFRACT_CASE
}

}  // namespace refract::hopper
