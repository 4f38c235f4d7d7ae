#include "ops/common/philox_cpu.h"

#include "ops/common/simd.h"

namespace refract::simd {

REFRACT_SIMD void draw_philox(PhiloxKey key, uint64_t step, uint64_t block,
                              uint32_t* __restrict words, int64_t count) {
  for (int64_t b = 0; b < count; ++b) {
    const PhiloxBlock drawn = philox(key, step, block + static_cast<uint64_t>(b));
    for (int j = 0; j < 4; ++j) words[4 * b + j] = drawn.word[j];
  }
}

REFRACT_SIMD void draw_noise(PhiloxKey key, uint64_t step, uint64_t block,
                             uint32_t* __restrict words, int64_t count) {
  for (int64_t b = 0; b < count; ++b) {
    const PhiloxBlock drawn = noise_block(key, step, block + static_cast<uint64_t>(b));
    for (int j = 0; j < 4; ++j) words[4 * b + j] = drawn.word[j];
  }
}

}  // namespace refract::simd
