// The arithmetic of bit flips, one code path for CPU and CUDA.
#pragma once
#include <cstdint>

#include "ops/common/philox.h"

namespace refract::numeric {

// Of a floating-point type: its bits, and which of them are sign and exponent.
struct FlipType {
  int bits;  // 16 or 32
  uint32_t sign_and_exponent, fraction;
};
constexpr FlipType kFlipFloat = {32, 0xff800000u, 0x007fffffu};
constexpr FlipType kFlipBfloat16 = {16, 0xff80u, 0x007fu};
constexpr FlipType kFlipHalf = {16, 0xfc00u, 0x03ffu};

struct Flips {
  int exponent, fraction;  // random bits that are ANDed to a mask bit; 0: none flips
  float zero_out;
  bool zeroes;
};

REFRACT_HOST_DEVICE int most_flips(const Flips& f) {
  return f.exponent > f.fraction ? f.exponent : f.fraction;
}
// Philox blocks per element: a mask of 32 bits takes a word, one of 16 half a word.
REFRACT_HOST_DEVICE int blocks_per_element(const FlipType& type, const Flips& f) {
  const int per_block = 128 / type.bits;
  return (most_flips(f) + per_block - 1) / per_block;
}

// The bits that flip. words: 4 per block of the element. The masks of both parts come from one
// chain of ANDs: their bits stand at different places, so they are independent.
REFRACT_HOST_DEVICE uint32_t flip_mask(const FlipType& type, const Flips& f,
                                       const uint32_t* words) {
  const int most = most_flips(f);
  uint32_t chain = ~0u, mask = 0;
  for (int n = 1; n <= most; ++n) {
    const int at = n - 1;
    const uint32_t random =
        type.bits == 32 ? words[at] : (at % 2 != 0 ? words[at / 2] >> 16 : words[at / 2] & 0xffffu);
    chain &= random;
    if (n == f.exponent) mask |= chain & type.sign_and_exponent;
    if (n == f.fraction) mask |= chain & type.fraction;
  }
  return mask;
}

// Whether an element that became `flipped` is kept.
REFRACT_HOST_DEVICE bool is_kept(const Flips& f, float flipped) {
  const float magnitude = flipped < 0.0f ? -flipped : flipped;
  return !f.zeroes || magnitude < f.zero_out;
}

}  // namespace refract::numeric
