// Where parameters begin in an arena.
#pragma once
#include <cstdint>

namespace refract {

// A parameter that is not joined to the one before it begins at a multiple of this many elements:
// 128 bytes of bf16, whole cache lines. What lies between is padding, which is zero and stays it.
inline constexpr int64_t kArenaAlignment = 64;

}  // namespace refract
