// What benchmarks compute on.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "bench/device.h"

namespace refract {

// int32 [batch, length] of random tokens below `vocabulary`, the same for a seed on every device.
at::Tensor random_tokens(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed);

// [tokens, width] of normal numbers on the device, in its type.
at::Tensor random_input(int64_t tokens, int64_t width, const BenchDevice& bench);

}  // namespace refract
