// Bit flips that are rare: drawn for 128 bits at once, one code path for CPU and CUDA.
//
// A Bernoulli process of rate p over many bits is a Poisson number of darts, each of which falls on
// one of the bits by chance: with -M ln(1 - p) darts for M bits on average, a bit is hit by at
// least one with probability p, independently of all others. So one block of random words tells of
// a group of 128 bits that nearly always none flips, where a chain of ANDs takes a word for every
// 32 bits n times over. The number of darts is drawn with 64 bits.
#pragma once
#include <cstdint>

#include "ops/common/philox.h"
#include "ops/numeric/flip_math.h"

namespace refract::numeric {

constexpr int kRareFlips = 8;  // p = 2^-8 and less is rare
constexpr int kGroupBits = 128;
constexpr int kMostDarts = 20;  // of a group: more have a probability below 2^-64

// Of one rate.
struct Darts {
  int count;                     // of the numbers below
  uint64_t at_most[kMostDarts];  // 2^64 P(no more than k darts)
};

// A group's bits are hit by up to two processes, each for the bits of a mask.
struct RareFlips {
  int processes;
  Darts darts[2];
  uint32_t bits[2];  // of each word of a group
};

struct GroupMask {
  uint32_t word[kGroupBits / 32];
};

REFRACT_HOST_DEVICE bool is_rare(const Flips& f) {
  const bool exponent = f.exponent == 0 || f.exponent >= kRareFlips;
  const bool fraction = f.fraction == 0 || f.fraction >= kRareFlips;
  return exponent && fraction && most_flips(f) > 0;
}

// Where the words of a group's process stand: words 0 and 1 of the first block draw the number of
// darts, the bytes of words 2 and 3 the places of the first 8, those of the second block of more.
REFRACT_HOST_DEVICE uint64_t dart_block(int process, int second, uint64_t group) {
  return group | static_cast<uint64_t>(process) << 61 | static_cast<uint64_t>(second) << 62;
}

REFRACT_HOST_DEVICE int dart_count(const Darts& d, uint32_t high, uint32_t low) {
  const uint64_t drawn = static_cast<uint64_t>(high) << 32 | low;
  int count = 0;
  while (count < d.count && drawn >= d.at_most[count]) ++count;
  return count;
}

// Adds to the mask where the darts of a process fall, `first` being its first block.
REFRACT_HOST_DEVICE void throw_darts(const RareFlips& f, int process, const uint32_t* first,
                                     PhiloxKey key, uint64_t step, uint64_t group,
                                     GroupMask& mask) {
  const int count = dart_count(f.darts[process], first[0], first[1]);
  if (count == 0) return;
  PhiloxBlock second{};
  if (count > 8) second = noise_block(key, step, dart_block(process, 1, group));
  for (int dart = 0; dart < count; ++dart) {
    const int byte = dart < 8 ? dart : dart - 8;
    const uint32_t low = dart < 8 ? first[2] : second.word[0];
    const uint32_t high = dart < 8 ? first[3] : second.word[1];
    // A dart's word is chosen by comparing, so that a GPU keeps all in registers.
    const uint32_t third = byte < 8 ? 0u : byte < 12 ? second.word[2] : second.word[3];
    const uint32_t from = byte < 4 ? low : byte < 8 ? high : third;
    const uint32_t place = from >> (8 * (byte & 3)) & 127u;
    const uint32_t bit = (1u << (place & 31u)) & f.bits[process];
    for (uint32_t w = 0; w < 4; ++w) mask.word[w] |= place >> 5 == w ? bit : 0u;
  }
}

}  // namespace refract::numeric
