// Blocks of a GGUF tensor to float32 and back.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/gguf/gguf_types.h"

namespace refract {

// Whether dequantize() knows the type: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and
// Q6_K.
bool is_dequantized(const GgufType& type);

// `count` elements, whole blocks, from `blocks` to `out`, with the bits that the package gguf (and
// so transformers) gives: every product and every sum is rounded to float32 by itself.
void dequantize(const GgufType& type, const std::byte* blocks, int64_t count, float* out);

// The bytes of `count` elements (whole blocks) as Q8_0, as ggml's reference code rounds them: a
// float16 scale of max |x| / 127 for 32 elements, each to the nearest, halves away from zero.
void quantize_q8_0(const float* values, int64_t count, std::byte* out);

}  // namespace refract
