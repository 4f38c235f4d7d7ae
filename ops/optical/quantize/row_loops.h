// The loops of the optical CPU kernels, compiled for several instruction sets (ops/common/simd.h).
// T is float, at::BFloat16 or at::Half.
#pragma once
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstdint>

#include "ops/optical/quantize/quantization_math.h"

namespace refract::optical {

struct EncodeRow {
  Quantizer q;
  Coder c;
};

// What turns codes' products into outputs.
struct OutputRow {
  Quantizer q;
  float gain;    // value per unit of product
  float row;     // what the row adds
  float shared;  // noise of every element, where there are no halves
  bool clipped;  // the range seen is that of the output, not of the value before quantization
};

// NOLINTBEGIN(bugprone-macro-parentheses): T is a type
#define REFRACT_OPTICAL_LOOPS(T)                                                               \
  Range seen_in(const T* x, int64_t n);                                                        \
  /* One row: its codes and their sum; returns the range of x. */                              \
  Range encode_row(const T* x, float* codes, float* sum, int64_t n, const EncodeRow& a);       \
  Range quantize_row(const T* x, T* y, const uint16_t* halves, int64_t n, const OutputRow& a); \
  /* y = Q(gain product + row + column) + bias. halves: Philox's, one per element; or null. */ \
  Range output_row(const float* product, T* y, const float* column, const float* bias,         \
                   const uint16_t* halves, int64_t n, const OutputRow& a);
// NOLINTEND(bugprone-macro-parentheses)
REFRACT_OPTICAL_LOOPS(float)
REFRACT_OPTICAL_LOOPS(at::BFloat16)
REFRACT_OPTICAL_LOOPS(at::Half)
#undef REFRACT_OPTICAL_LOOPS

// The range of gain product + row + column.
Range seen_in_product(const float* product, const float* column, int64_t n, float gain, float row);

}  // namespace refract::optical
