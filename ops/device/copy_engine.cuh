// Hopper's copy engine (sm_90a) as functions: barriers in shared memory (mbarrier), the bulk and
// tensor copies that complete on them, and the clusters of blocks that they reach. Only for files
// named x_sm90a.cu.
#pragma once
#include <cuda.h>

#include <cstdint>

#include "ops/device/shared_address.cuh"

namespace refract::hopper {

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

}  // namespace refract::hopper
