// Where the decoder layers' gradients lie.
#pragma once
#include <cstdint>
#include <vector>

#include "model/parameters.h"
#include "train/together/slices.h"

namespace refract {

// Smaller ones are not worth a message of their own.
inline constexpr int64_t kSmallestPart = int64_t{1} << 12;

// For each decoder layer, and behind them for a head that is not the embedding, the range of the
// arena's trainable matrices that is all its own, without guides; empty where it is smaller than
// kSmallestPart. Vectors lie elsewhere and are few.
std::vector<Range> layer_parts(const ParameterArena& arena);

}  // namespace refract
