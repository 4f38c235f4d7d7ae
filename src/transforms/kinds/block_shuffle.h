// BlockShuffle, the Monarch matrices of Dao et al. (arXiv 2204.00595): y = f^-1(U_b f(V_b x)), both
// factors block diagonal with B blocks. With H = min(N, M) inner features, V_b is [B, H/B, N/B] for
// N < M and [B, M/B, N/B] otherwise, U_b [B, M/B, H/B] with H = N or M; min(N, M) (N + M) / B
// parameters. f reads the first product as a grid [H/B, B] and hands its column b to block b: inner
// feature i B + b is input i of block b. The output is written the same way: block b's output j is
// feature j B + b.
#pragma once
#include <memory>

#include "transforms/kind.h"

namespace refract {

std::unique_ptr<Kind> make_block_shuffle();

}  // namespace refract
