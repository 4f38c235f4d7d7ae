// Bringing one model's units, heads and channels into the order of another's.
//
// Weight matching: coordinate descent on sum <A, S(B)> over all weights, each step the exact best
// for one layer's units, one layer's heads or the residual stream (Ainsworth et al., "Git
// Re-Basin", arXiv 2209.04836, section 3.2; heads and the residual stream of transformers as in
// Theus et al., 2025). Activation matching: the same steps once, on correlations of activations on
// the same tokens (section 3.1 there).
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "analysis/matching/symmetry.h"
#include "data/tokens.h"

namespace refract {

struct AlignOptions {
  std::string by = "weights";  // or "activations"
  // Of the residual stream: "none"; "permutation"; "orthogonal" (Procrustes, for RMSNorm models
  // with a head of their own, scales folded and taken out again); "auto": orthogonal where it can
  // be, else permutation. An orthogonal map that is a permutation is applied as one, without
  // rounding.
  std::string residual = "auto";
  int64_t sweeps = 50;  // at most, of coordinate descent
  // Of activation matching: so many windows of `context` from the stream's start.
  std::shared_ptr<TokenStream> stream;
  int64_t context = 0, windows = 256;
};

struct AlignReport {
  std::string residual;  // what was done with it
  int64_t sweeps = 0;
  double distance_before = 0, distance_after = 0;  // |A - B|
};

// Changes the weights of `b`, whose function stays the same to rounding. Both are dense models of
// one configuration.
AlignReport align(Decoder& a, Decoder& b, const AlignOptions& options);

}  // namespace refract
