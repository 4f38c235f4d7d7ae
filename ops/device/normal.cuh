// Standard normal numbers as refract::normal_noise defines them.
#pragma once
#include <cstdint>

#include "ops/common/philox.h"

namespace refract {

// Numbers 4 block to 4 block + 3 of a stream.
__device__ __forceinline__ float4 normal_block(PhiloxKey key, uint64_t step, uint64_t block) {
  const PhiloxBlock words = noise_block(key, step, block);
  float at[4];
#pragma unroll
  for (int pair = 0; pair < 2; ++pair) {
    const float u = philox_uniform(words.word[2 * pair]);
    const float v = philox_uniform(words.word[2 * pair + 1]);
    const float radius = sqrtf(-2.0f * logf(1.0f - u));
    float sin, cos;
    sincospif(2.0f * v, &sin, &cos);
    at[2 * pair] = radius * cos;
    at[2 * pair + 1] = radius * sin;
  }
  return {at[0], at[1], at[2], at[3]};
}

// A tensor's element 0 is number `first` of the stream; a thread takes one block's numbers. Where
// they lie in the tensor, of `count` elements, some of them perhaps outside.
struct NormalPlace {
  int64_t block, element;  // element: of the block's first number

  __device__ NormalPlace(int64_t first, int64_t thread)
      : block((first >> 2) + thread), element(4 * thread - (first & 3)) {}
};
// Threads that are enough, whatever `first` is.
__host__ __device__ constexpr int64_t normal_threads(int64_t count) { return count / 4 + 2; }

}  // namespace refract
