// Copies of whole blocks of global memory to shared memory by the copy engine (cp.async.bulk,
// compute capability 9.0): one thread starts them, and a barrier in shared memory counts the bytes
// that have arrived. Addresses and sizes are multiples of 16.
#pragma once
#include <cstdint>

#include "ops/optical/mma.cuh"

namespace refract::bulk {

// One thread makes them; a barrier of the block follows.
__device__ __forceinline__ void make_barrier(uint64_t* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(mma::shared_address(barrier))
               : "memory");
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// The bytes that the barrier's next phase waits for.
__device__ __forceinline__ void expect(uint64_t* barrier, uint32_t bytes) {
  asm volatile(
      "mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(mma::shared_address(barrier)),
      "r"(bytes)
      : "memory");
}
__device__ __forceinline__ void copy(void* to, const void* from, uint32_t bytes,
                                     uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::
          "r"(mma::shared_address(to)),
      "l"(from), "r"(bytes), "r"(mma::shared_address(barrier))
      : "memory");
}
// Waits for the phase of this parity; phases count from 0.
__device__ __forceinline__ void await(uint64_t* barrier, int parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@!done bra again;\n}" ::"r"(mma::shared_address(barrier)),
      "r"(parity)
      : "memory");
}

}  // namespace refract::bulk
