// Rotary position tables (Su et al., arXiv 2104.09864) with the scalings of Hugging Face's
// configurations.
#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "model/config.h"

namespace refract {

// cos and sin of every position's angles, each [longest_cached(), head_dim / 2], float on the CPU.
// With a partial_rotary_factor below 1 the first rotary_width() / 2 pairs turn, as fast as those of
// a head of that width, and the others stand still. With yarn scaling (Peng et al., "YaRN", arXiv
// 2309.00071) what turns is multiplied by the attention factor.
std::pair<at::Tensor, at::Tensor> rope_tables(const ModelConfig& config);

// The same for one sequence of `length` tokens, [length, head_dim / 2]: with dynamic scaling the
// base grows with a length beyond max_position_embeddings, for all of its positions.
std::pair<at::Tensor, at::Tensor> rope_tables_for(const ModelConfig& config, int64_t length);

// Fails (usage) where the tables would take more than 2 GiB. No weight bounds the number of
// positions, so this is asked before anything of the model is allocated.
void check_rope_tables(const ModelConfig& config);

}  // namespace refract
