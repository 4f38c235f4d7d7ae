// Rotary position tables (Su et al., arXiv 2104.09864) with the scalings of Hugging Face's
// configurations.
#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "model/config.h"

namespace refract {

// cos and sin of every position's angles, each [max_position_embeddings, head_dim / 2], float on
// the CPU. With a partial_rotary_factor below 1 the first rotary_width() / 2 pairs turn, as fast as
// those of a head of that width, and the others stand still.
std::pair<at::Tensor, at::Tensor> rope_tables(const ModelConfig& config);

// Fails (usage) where the tables would take more than 2 GiB. No weight bounds the number of
// positions, so this is asked before anything of the model is allocated.
void check_rope_tables(const ModelConfig& config);

}  // namespace refract
