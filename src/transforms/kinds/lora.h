// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685, section 4.1): y = f(x) + s (drop(x) A^T)
// B^T with f a frozen layer of any kind, A [r, in], B [out, r] and s = alpha / r. B starts at zero,
// so that the first output is the frozen layer's, and A normal with the variance 1 / (3 in) of
// PEFT's uniform start.
#pragma once
#include <memory>

#include "transforms/kind.h"

namespace refract {

std::unique_ptr<Kind> make_lora();

}  // namespace refract
