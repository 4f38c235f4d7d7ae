// Where something lies in shared memory, as the instructions that read it there want to know it.
#pragma once
#include <cstdint>

namespace refract {

__device__ __forceinline__ uint32_t shared_address(const void* p) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(p));
}

}  // namespace refract
