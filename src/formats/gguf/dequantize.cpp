#include "formats/gguf/dequantize.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace refract {
namespace {

constexpr int kSmall = 32, kLarge = 256;  // elements of a block

float half_at(const std::byte* at) {
  uint16_t bits = 0;
  std::memcpy(&bits, at, sizeof(bits));
  return c10::Half(bits, c10::Half::from_bits());
}

int byte_at(const std::byte* at) { return std::to_integer<int>(*at); }

// A product by itself: the compiler may not make one rounding of it and of the sum behind it.
float product(float a, float b) {
  const volatile float rounded = a * b;
  return rounded;
}

// The low four bits of 16 bytes, then their high four.
void nibbles(const std::byte* bytes, int* out) {
  for (int i = 0; i < kSmall / 2; ++i) {
    out[i] = byte_at(bytes + i) & 15;
    out[i + kSmall / 2] = byte_at(bytes + i) >> 4;
  }
}

// The same with a fifth bit from a mask of 32.
void fifths(const std::byte* mask, const std::byte* bytes, int* out) {
  uint32_t high = 0;
  std::memcpy(&high, mask, sizeof(high));
  nibbles(bytes, out);
  for (int i = 0; i < kSmall; ++i) out[i] |= static_cast<int>(high >> i & 1) << 4;
}

// d q
void scaled(float d, const int* levels, int offset, float* out) {
  for (int i = 0; i < kSmall; ++i) out[i] = d * static_cast<float>(levels[i] - offset);
}

// d q + m
void shifted(float d, float m, const int* levels, float* out) {
  for (int i = 0; i < kSmall; ++i) out[i] = product(d, static_cast<float>(levels[i])) + m;
}

void q4_0(const std::byte* block, float* out) {
  int levels[kSmall];
  nibbles(block + 2, levels);
  scaled(half_at(block), levels, 8, out);
}

void q4_1(const std::byte* block, float* out) {
  int levels[kSmall];
  nibbles(block + 4, levels);
  shifted(half_at(block), half_at(block + 2), levels, out);
}

void q5_0(const std::byte* block, float* out) {
  int levels[kSmall];
  fifths(block + 2, block + 6, levels);
  scaled(half_at(block), levels, 16, out);
}

void q5_1(const std::byte* block, float* out) {
  int levels[kSmall];
  fifths(block + 4, block + 8, levels);
  shifted(half_at(block), half_at(block + 2), levels, out);
}

void q8_0(const std::byte* block, float* out) {
  const float d = half_at(block);
  for (int i = 0; i < kSmall; ++i)
    out[i] = static_cast<float>(static_cast<int8_t>(byte_at(block + 2 + i))) * d;
}

// The six-bit scale and minimum of part `i` of eight, packed in twelve bytes.
void scale_and_minimum(const std::byte* packed, int i, int& scale, int& minimum) {
  if (i < 4) {
    scale = byte_at(packed + i) & 63;
    minimum = byte_at(packed + i + 4) & 63;
    return;
  }
  scale = (byte_at(packed + i + 4) & 15) | (byte_at(packed + i - 4) >> 6 << 4);
  minimum = (byte_at(packed + i + 4) >> 4) | (byte_at(packed + i) >> 6 << 4);
}

// Eight parts of 32, two beside each other in the nibbles of 32 bytes; `high` has a fifth bit of
// part i in bit i of 32 bytes, or is null.
void k_parts(const std::byte* block, const std::byte* high, const std::byte* low, float* out) {
  const float d = half_at(block), minimum_unit = half_at(block + 2);
  for (int part = 0; part < 8; ++part) {
    int scale = 0, minimum = 0;
    scale_and_minimum(block + 4, part, scale, minimum);
    const float unit = d * static_cast<float>(scale);
    const float below = product(minimum_unit, static_cast<float>(minimum));
    const std::byte* bytes = low + part / 2 * kSmall;
    for (int i = 0; i < kSmall; ++i) {
      int level = part % 2 == 0 ? byte_at(bytes + i) & 15 : byte_at(bytes + i) >> 4;
      if (high) level |= (byte_at(high + i) >> part & 1) << 4;
      out[part * kSmall + i] = product(unit, static_cast<float>(level)) - below;
    }
  }
}

void q4_k(const std::byte* block, float* out) { k_parts(block, nullptr, block + 16, out); }
void q5_k(const std::byte* block, float* out) { k_parts(block, block + 16, block + 48, out); }

// 128 elements twice: their low four bits in 64 bytes, two more in 32; a scale for each 16.
void q6_k(const std::byte* block, float* out) {
  const std::byte *low = block, *high = block + 128, *scales = block + 192;
  const float d = half_at(block + 208);
  for (int i = 0; i < kLarge; ++i) {
    const int half = i / 128, within = i % 128, part = within / 32, lane = within % 32;
    const int byte = byte_at(low + half * 64 + within % 64);
    const int two = byte_at(high + half * 32 + lane) >> (2 * part) & 3;
    const int level = (part < 2 ? byte & 15 : byte >> 4) | two << 4;
    const auto scale = static_cast<float>(static_cast<int8_t>(byte_at(scales + i / 16)));
    out[i] = product(d, scale) * static_cast<float>(level - 32);
  }
}

using Block = void (*)(const std::byte* block, float* out);

Block block_of(uint32_t number) {
  switch (number) {
    case kGgufQ4_0:
      return q4_0;
    case kGgufQ4_1:
      return q4_1;
    case kGgufQ5_0:
      return q5_0;
    case kGgufQ5_1:
      return q5_1;
    case kGgufQ8_0:
      return q8_0;
    case kGgufQ4_K:
      return q4_k;
    case kGgufQ5_K:
      return q5_k;
    case kGgufQ6_K:
      return q6_k;
    default:
      return nullptr;
  }
}

template <class Element>
void widen(const std::byte* from, int64_t count, float* out) {
  for (int64_t i = 0; i < count; ++i) {
    Element element;
    std::memcpy(&element, from + i * static_cast<int64_t>(sizeof(element)), sizeof(element));
    out[i] = static_cast<float>(element);
  }
}

}  // namespace

bool is_dequantized(const GgufType& type) {
  return type.number == kGgufF32 || type.number == kGgufF16 || type.number == kGgufBF16 ||
         block_of(type.number) != nullptr;
}

void dequantize(const GgufType& type, const std::byte* blocks, int64_t count, float* out) {
  if (type.number == kGgufF32) {
    std::memcpy(out, blocks, static_cast<size_t>(count) * sizeof(float));
  } else if (type.number == kGgufF16) {
    widen<c10::Half>(blocks, count, out);
  } else if (type.number == kGgufBF16) {
    widen<c10::BFloat16>(blocks, count, out);
  } else {
    const Block block = block_of(type.number);
    const auto elements = static_cast<int64_t>(type.elements);
    for (int64_t i = 0; i < count; i += elements, blocks += type.bytes) block(blocks, out + i);
  }
}

void quantize_q8_0(const float* values, int64_t count, std::byte* out) {
  for (int64_t begin = 0; begin < count; begin += kSmall, out += 2 + kSmall) {
    float largest = 0;
    for (int i = 0; i < kSmall; ++i) largest = std::max(largest, std::abs(values[begin + i]));
    const float d = largest / 127;
    // Below that 1 / d is infinite, and the scale is 0 in float16 anyway.
    const float inverse = d < std::numeric_limits<float>::min() ? 0 : 1 / d;
    const uint16_t scale = c10::Half(d).x;
    std::memcpy(out, &scale, sizeof(scale));
    for (int i = 0; i < kSmall; ++i) {
      const float level = std::round(product(values[begin + i], inverse));
      out[2 + i] = static_cast<std::byte>(static_cast<int8_t>(level));
    }
  }
}

}  // namespace refract
