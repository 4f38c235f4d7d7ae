// Philox 4x32 (10 rounds; 7 for simulated noise), the counter-based random generator of Salmon et
// al., "Parallel Random Numbers: As Easy as 1, 2, 3" (SC 2011). The one source of randomness in
// refract: the same key and counter give the same four words on a CPU and on a GPU, in any order,
// on any number of threads.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#define REFRACT_HOST_DEVICE __host__ __device__ __forceinline__
#else
// Inlined into its loop, or the loop could not be vectorised.
#define REFRACT_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace refract {

struct PhiloxKey {
  uint32_t lo, hi;
};

struct PhiloxBlock {
  uint32_t word[4];
};

// A stream's key: the run's seed and the stream's id (a layer and role, "data order",
// "initialisation", ...).
REFRACT_HOST_DEVICE PhiloxKey philox_key(uint64_t seed, uint64_t stream) {
  // SplitMix64's finalizer spreads neighbouring seeds and ids over the key space.
  uint64_t z = seed + 0x9e3779b97f4a7c15ull * (stream + 1);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return {static_cast<uint32_t>(z), static_cast<uint32_t>(z >> 32)};
}

// Rounds: the authors' choice, and for simulated noise the fewest that pass every test of TestU01's
// BigCrush (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, table 2).
inline constexpr int kPhiloxRounds = 10, kNoiseRounds = 7;

// Four independent 32-bit words for a key and a 128-bit counter, here (step, block index).
template <int kRounds = kPhiloxRounds>
REFRACT_HOST_DEVICE PhiloxBlock philox(PhiloxKey key, uint64_t step, uint64_t block) {
  uint32_t c0 = static_cast<uint32_t>(block), c1 = static_cast<uint32_t>(block >> 32);
  uint32_t c2 = static_cast<uint32_t>(step), c3 = static_cast<uint32_t>(step >> 32);
  uint32_t k0 = key.lo, k1 = key.hi;
#ifdef __CUDACC__
#pragma unroll
#else
#pragma GCC unroll 10
#endif
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t p0 = 0xD2511F53ull * c0;
    const uint64_t p1 = 0xCD9E8D57ull * c2;
    const uint32_t n0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    const uint32_t n2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    c0 = n0;
    c2 = n2;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// A block of simulated noise.
REFRACT_HOST_DEVICE PhiloxBlock noise_block(PhiloxKey key, uint64_t step, uint64_t block) {
  return philox<kNoiseRounds>(key, step, block);
}

// The word that belongs to element `index` of a stream at `step`: four neighbours share one block.
REFRACT_HOST_DEVICE uint32_t philox_word(PhiloxKey key, uint64_t step, uint64_t index) {
  return philox(key, step, index >> 2).word[index & 3];
}

// Uniform in [0, 1) with 24 bits, exactly representable in float.
REFRACT_HOST_DEVICE float philox_uniform(uint32_t word) {
  return static_cast<float>(word >> 8) * (1.0f / 16777216.0f);
}

}  // namespace refract
