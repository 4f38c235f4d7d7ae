// Drawing tokens from logits, on the device they lie on.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "text/tokenizer.h"

namespace refract {

struct SamplingOptions {
  int64_t max_tokens = 100;
  double temperature = 1;  // 0: the likeliest token
  int64_t top_k = 0;       // 0: all
  double top_p = 1;        // 1: all
  uint64_t seed = 1;
  std::vector<TokenId> stop;  // any of these ends the sample and is not part of it
};

// One token per row of logits [B, V], by the inverse of its distribution at uniform numbers [B]
// (float) in [0, 1): int64 [B]. Nothing is asked of the host, so a graph can hold it.
at::Tensor sample_tokens(const at::Tensor& logits_BV, const SamplingOptions& options,
                         const at::Tensor& uniform_B);

}  // namespace refract
