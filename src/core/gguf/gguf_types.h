// The element types of tensors in a GGUF file and how many bytes they take.
#pragma once
#include <cstdint>
#include <string_view>

namespace refract {

// The types that are read and written by number; the others are only known by size.
inline constexpr uint32_t kGgufF32 = 0, kGgufF16 = 1, kGgufQ4_0 = 2, kGgufQ4_1 = 3, kGgufQ5_0 = 6,
                          kGgufQ5_1 = 7, kGgufQ8_0 = 8, kGgufQ4_K = 12, kGgufQ5_K = 13,
                          kGgufQ6_K = 14, kGgufBF16 = 30;

struct GgufType {
  uint32_t number;
  std::string_view name;
  uint64_t elements, bytes;  // of a block; a row is whole blocks
};

// Null for a number that no published type has.
const GgufType* find_gguf_type(uint32_t number);

}  // namespace refract
