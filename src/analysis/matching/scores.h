// What bringing a part of one model to a part of another would add to sum <A, S(B)> over all
// weights, and the changes S that add most.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "analysis/matching/head_maps.h"
#include "analysis/matching/symmetry.h"

namespace refract {

// The best permutation for a score matrix [n, n] on the CPU, or the identity where that is as good.
Permutation best_permutation(const at::Tensor& score);
// How many things a permutation moves.
int64_t moved(const Permutation& p);
int64_t moved(const HeadPermutation& heads);

// Between feed-forward units [F, F].
at::Tensor unit_scores(const NamedWeights& a, const NamedWeights& b, int64_t layer);

// Between query heads [H, H] and between key/value groups [K, K].
struct HeadScores {
  at::Tensor queries, groups;
};
HeadScores head_scores(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                       int64_t layer);
// Groups and the query heads inside them together: a pair of groups scores what its best inner
// order adds.
HeadPermutation best_heads(const HeadScores& scores, const ModelConfig& config);

// Heads that may also be rotated inside (head_maps.h). Scores of a pair are what its best rotation
// adds; with several query heads in a group their order is found under the rotation that suits the
// group's keys and values, and the rotation for that order.
HeadPermutation best_rotated_heads(const NamedWeights& a, const NamedWeights& b,
                                   const ModelConfig& config, int64_t layer);
// The rotations of heads that stand in their order.
HeadMaps best_rotations(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                        int64_t layer);

// M with <M, P> = sum <A, P applied to B> over what touches the residual stream. `settled` leaves
// out what also depends on the order of units and heads. Folded scales are all 1: no map changes
// their part, which has to be left out for a map that is no permutation.
at::Tensor residual_scores(const NamedWeights& a, const NamedWeights& b, const ModelConfig& config,
                           bool settled, bool folded);

// |A - B| over the weights of `a`.
double distance(const NamedWeights& a, const NamedWeights& b);

}  // namespace refract
