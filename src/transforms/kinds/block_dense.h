// BlockDense: y = U (V_b x) with V_b block diagonal [B, R/B, N/B] and U [M, R] dense; R (M + N/B)
// parameters.
#pragma once
#include <memory>

#include "transforms/kind.h"

namespace refract {

std::unique_ptr<Kind> make_block_dense();

}  // namespace refract
