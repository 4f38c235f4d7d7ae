// Llama 3's rotary scaling in GGUF files: not its settings, but what they divide each frequency by,
// as the tensor rope_freqs.weight [D / 2].
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace refract {

struct Llama3Rope {
  double theta = 10000;
  int64_t head_dim = 0;
  double factor = 8, low = 1, high = 4;  // rope_factor, low_freq_factor, high_freq_factor
  int64_t original = 8192;               // original_max_position_embeddings
};

std::vector<float> llama3_divisors(const Llama3Rope& rope);

// The settings that give these divisors; none where there are none such. `known` holds theta,
// head_dim, low and high, and the factor and the original length where they are not 0; otherwise
// the factor is the largest divisor, and powers of two are tried for the length.
std::optional<Llama3Rope> llama3_of_divisors(std::span<const float> divisors,
                                             const Llama3Rope& known);

}  // namespace refract
