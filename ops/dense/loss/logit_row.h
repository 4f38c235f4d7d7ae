// What the CPU kernels of the loss take from a row of logits. To be called in a REFRACT_SIMD
// function.
#pragma once
#include "ops/common/math.h"
#include "ops/common/simd.h"

namespace refract {

template <class T>
REFRACT_INLINE T row_max_body(const T* x, int64_t n) {
  T lane[simd::kLanes];
  for (int i = 0; i < simd::kLanes; ++i) lane[i] = x[0];
  int64_t j = 0;
  for (; j + simd::kLanes <= n; j += simd::kLanes) {
    for (int i = 0; i < simd::kLanes; ++i) lane[i] = x[j + i] > lane[i] ? x[j + i] : lane[i];
  }
  T best = lane[0];
  for (int i = 1; i < simd::kLanes; ++i) best = lane[i] > best ? lane[i] : best;
  for (; j < n; ++j) best = x[j] > best ? x[j] : best;
  return best;
}

template <class T>
REFRACT_INLINE T row_sum_exp_body(const T* x, int64_t n, T shift) {
  T lane[simd::kLanes] = {};
  int64_t j = 0;
  for (; j + simd::kLanes <= n; j += simd::kLanes) {
    for (int i = 0; i < simd::kLanes; ++i) lane[i] += simd::exp(x[j + i] - shift);
  }
  T tail = 0;
  for (; j < n; ++j) tail += simd::exp(x[j] - shift);
  return simd::add_lanes(lane) + tail;
}

}  // namespace refract
