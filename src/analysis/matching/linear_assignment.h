// The linear assignment problem.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

namespace refract {

// A permutation p of n columns that maximizes sum_i score[i * n + p[i]], by shortest augmenting
// paths with potentials (Jonker and Volgenant, "A shortest augmenting path algorithm for dense and
// sparse linear assignment problems", Computing 38, 1987), in O(n^3). Scores must be finite. Among
// equally good permutations the outcome is a function of the scores alone.
std::vector<int64_t> maximal_assignment(std::span<const double> score, int64_t n);

}  // namespace refract
