// Philox words for a run of elements on the CPU.
#pragma once
#include <cstdint>

#include "ops/common/philox.h"

namespace refract::simd {

// words[4 b + j] = word j of block `block` + b, for b = 0 .. count - 1.
void draw_philox(PhiloxKey key, uint64_t step, uint64_t block, uint32_t* words, int64_t count);
// The same of noise_block().
void draw_noise(PhiloxKey key, uint64_t step, uint64_t block, uint32_t* words, int64_t count);

}  // namespace refract::simd
