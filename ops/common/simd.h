// How CPU kernels become fast on any x86-64: the build targets the baseline (SSE2), and a hot loop
// marked REFRACT_SIMD is compiled for AVX2 and AVX-512 too and chosen when the library is loaded.
// The loop must be plain (no lambdas, no calls that are not inlined): a clone inlines only what is
// marked REFRACT_INLINE. Sums in such a loop say `#pragma omp simd reduction` or are written
// over kLanes accumulators, since the compiler may not reorder a floating-point sum unasked.
#pragma once
#include <ATen/core/Tensor.h>

#include <bit>
#include <cstdint>
#include <cstring>

#include "ops/common/dispatch.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define REFRACT_SIMD __attribute__((target_clones("default", "arch=x86-64-v3", "arch=x86-64-v4")))
#else
#define REFRACT_SIMD
#endif
#define REFRACT_INLINE inline __attribute__((always_inline))

namespace refract::simd {

// Independent partial results of a reduction that is written out by hand: enough for one AVX-512
// register of floats.
inline constexpr int kLanes = 16;

// Adds the lanes in a fixed tree.
template <class T>
REFRACT_INLINE T add_lanes(T (&lane)[kLanes]) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int i = 0; i < width; ++i) lane[i] += lane[i + width];
  }
  return lane[0];
}

// Half types are computed in float: widen when read, narrow when written.
REFRACT_INLINE double widen(double x) { return x; }
REFRACT_INLINE float widen(float x) { return x; }
REFRACT_INLINE float widen(at::BFloat16 x) {
  return std::bit_cast<float>(static_cast<uint32_t>(x.x) << 16);
}
REFRACT_INLINE float widen(at::Half x) { return static_cast<float>(x); }

template <class T>
REFRACT_INLINE T narrow(Accumulate<T> x) {
  return static_cast<T>(x);
}
// Round to nearest, ties to even; a NaN stays one.
template <>
REFRACT_INLINE at::BFloat16 narrow<at::BFloat16>(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  return at::BFloat16(static_cast<uint16_t>(nan ? 0x7fc0u : rounded), at::BFloat16::from_bits());
}

}  // namespace refract::simd
