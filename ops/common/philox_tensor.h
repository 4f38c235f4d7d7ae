// Philox in plain tensor arithmetic, for composite forms.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/common/philox.h"

namespace refract::composite {

// philox_uniform(philox_word(key, step, first + i)) for i = 0 .. count - 1: float [count] on the
// device of `step` and `first`, int64 scalars.
at::Tensor philox_uniforms(PhiloxKey key, const at::Tensor& step, const at::Tensor& first,
                           int64_t count);

// The four words of every block: int64 [..., 4] for `block`, int64 [...].
at::Tensor philox_words(PhiloxKey key, const at::Tensor& step, const at::Tensor& block,
                        int rounds = kPhiloxRounds);
// philox_uniform of words.
at::Tensor philox_uniforms_of(const at::Tensor& words);
// The 16-bit halves of blocks of noise, low halves first: half (first + i) & 7 of block (first + i)
// >> 3, as whole numbers in float [count].
at::Tensor philox_halves(PhiloxKey key, const at::Tensor& step, const at::Tensor& first,
                         int64_t count);

}  // namespace refract::composite
