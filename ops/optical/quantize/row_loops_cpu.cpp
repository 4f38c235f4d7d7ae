#include "ops/common/simd.h"
#include "ops/optical/quantize/row_loops.h"

namespace refract::optical {
namespace {

using simd::narrow;
using simd::widen;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

template <class T>
REFRACT_INLINE Range seen_loop(const T* __restrict x, int64_t n) {
  float lo = kInfinity, hi = -kInfinity;
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t i = 0; i < n; ++i) {
    const float v = widen(x[i]);
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  return {lo, hi};
}

template <class T>
REFRACT_INLINE Range encode_loop(const T* __restrict x, float* __restrict codes,
                                 float* __restrict sum_out, int64_t n, const EncodeRow& a) {
  const Quantizer q = a.q;
  const Coder c = a.c;
  float sum = 0, lo = kInfinity, hi = -kInfinity;
#pragma omp simd reduction(+ : sum) reduction(min : lo) reduction(max : hi)
  for (int64_t i = 0; i < n; ++i) {
    const float v = widen(x[i]);
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
    const float one = code(q, c, level(q, v));
    codes[i] = one;
    sum += one;
  }
  *sum_out = sum;
  return {lo, hi};
}

// y = value(Q(x)) with the LUT floor of q.
template <class T, bool kDrawn>
REFRACT_INLINE Range quantize_loop(const T* __restrict x, T* __restrict y,
                                   const uint16_t* __restrict halves, int64_t n,
                                   const OutputRow& a) {
  const Quantizer q = a.q;
  const float shared = a.shared;
  float lo = kInfinity, hi = -kInfinity;
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t i = 0; i < n; ++i) {
    const float v = widen(x[i]);
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
    const float xi = kDrawn ? noise_of_half(halves[i], false) : shared;
    y[i] = narrow<T>(value(q, noisy_level(q, v, xi)));
  }
  return {lo, hi};
}

template <class T, bool kDrawn>
REFRACT_INLINE Range output_loop(const float* __restrict product, T* __restrict y,
                                 const float* __restrict column, const float* __restrict bias,
                                 const uint16_t* __restrict halves, int64_t n, const OutputRow& a) {
  const Quantizer q = a.q;
  const float gain = a.gain, row = a.row, shared = a.shared;
  const bool clipped = a.clipped;
  float lo = kInfinity, hi = -kInfinity;
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t i = 0; i < n; ++i) {
    const float v = add(mul(gain, product[i]), add(row, column[i]));
    const float xi = kDrawn ? noise_of_half(halves[i], false) : shared;
    const float out = add(plain_value(q, noisy_level(q, v, xi)), bias[i]);
    y[i] = narrow<T>(out);
    const float seen = clipped ? out : v;
    lo = seen < lo ? seen : lo;
    hi = seen > hi ? seen : hi;
  }
  return {lo, hi};
}

}  // namespace

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define REFRACT_OPTICAL_LOOPS(T)                                                              \
  REFRACT_SIMD Range seen_in(const T* x, int64_t n) { return seen_loop(x, n); }               \
  REFRACT_SIMD Range encode_row(const T* x, float* codes, float* sum, int64_t n,              \
                                const EncodeRow& a) {                                         \
    return encode_loop(x, codes, sum, n, a);                                                  \
  }                                                                                           \
  REFRACT_SIMD Range quantize_row(const T* x, T* y, const uint16_t* halves, int64_t n,        \
                                  const OutputRow& a) {                                       \
    return halves != nullptr ? quantize_loop<T, true>(x, y, halves, n, a)                     \
                             : quantize_loop<T, false>(x, y, halves, n, a);                   \
  }                                                                                           \
  REFRACT_SIMD Range output_row(const float* product, T* y, const float* column,              \
                                const float* bias, const uint16_t* halves, int64_t n,         \
                                const OutputRow& a) {                                         \
    return halves != nullptr ? output_loop<T, true>(product, y, column, bias, halves, n, a)   \
                             : output_loop<T, false>(product, y, column, bias, halves, n, a); \
  }
// NOLINTEND(bugprone-macro-parentheses)
REFRACT_OPTICAL_LOOPS(float)
REFRACT_OPTICAL_LOOPS(at::BFloat16)
REFRACT_OPTICAL_LOOPS(at::Half)
#undef REFRACT_OPTICAL_LOOPS

REFRACT_SIMD Range seen_in_product(const float* __restrict product, const float* __restrict column,
                                   int64_t n, float gain, float row) {
  float lo = kInfinity, hi = -kInfinity;
#pragma omp simd reduction(min : lo) reduction(max : hi)
  for (int64_t i = 0; i < n; ++i) {
    const float v = add(mul(gain, product[i]), add(row, column[i]));
    lo = v < lo ? v : lo;
    hi = v > hi ? v : hi;
  }
  return {lo, hi};
}

}  // namespace refract::optical
