// LowRank: y = U (V x) with V [R, N], U [M, R]; (N + M) R parameters.
#pragma once
#include <memory>

#include "transforms/kind.h"

namespace refract {

std::unique_ptr<Kind> make_low_rank();

}  // namespace refract
