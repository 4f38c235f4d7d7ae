// One row of attention's probabilities, for the CPU kernels that keep it in the first cache.
#pragma once
#include "ops/common/math.h"

namespace refract::simd {

// s [width] -> softmax of scale * s over its first n elements; the others become zero.
template <class A, int L>
REFRACT_INLINE void softmax_row(A* s, int64_t n, int64_t width, A scale) {
  A top[L], total[L];
  for (int i = 0; i < L; ++i) top[i] = s[0], total[i] = 0;
  for (int64_t j = 0; j < width; j += L) {
    for (int i = 0; i < L; ++i) top[i] = (j + i < n && s[j + i] > top[i]) ? s[j + i] : top[i];
  }
  A highest = top[0];
  for (int i = 1; i < L; ++i) highest = top[i] > highest ? top[i] : highest;
  for (int64_t j = 0; j < width; j += L) {
    for (int i = 0; i < L; ++i) {
      const A e = simd::exp((s[j + i] - highest) * scale);
      s[j + i] = j + i < n ? e : A(0);
      total[i] += s[j + i];
    }
  }
  for (int step = L / 2; step > 0; step /= 2) {
    for (int i = 0; i < step; ++i) total[i] += total[i + step];
  }
  const A inverse = A(1) / total[0];
  for (int64_t j = 0; j < width; ++j) s[j] *= inverse;
}

}  // namespace refract::simd
