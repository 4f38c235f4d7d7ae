// Bringing one model's units, heads and channels to another's.
//
// Weight matching: coordinate descent on sum <A, S(B)> over all weights, each step the exact best
// for one layer's units, one layer's heads or the residual stream (Ainsworth et al., "Git
// Re-Basin", arXiv 2209.04836, section 3.2; heads and the residual stream of transformers as in
// Theus et al., arXiv 2506.22712). Activation matching: the same steps once, on correlations of
// activations on the same tokens (section 3.1 of the first). Learned matching (learn.h) goes on
// from either.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "analysis/matching/learn.h"
#include "analysis/matching/symmetry.h"
#include "data/tokens.h"

namespace refract {

struct AlignOptions {
  std::string by = "weights";  // or "activations"
  // Of the residual stream: "none"; "permutation"; "orthogonal" (Procrustes, of folded weights,
  // folding.h); "auto": orthogonal for RMSNorm models with a head of their own and with learned
  // matching, else permutation. By "auto" an orthogonal map that is a permutation is applied as
  // one, without rounding.
  std::string residual = "auto";
  // Of heads: "whole" (permuted as they are); "orthogonal" (also rotated inside, as far as
  // positions allow); "auto": as the residual stream. Learned matching moves the inside of heads by
  // invertible maps unless this is "whole".
  std::string heads = "auto";
  int64_t sweeps = 50;  // at most, of coordinate descent
  // Of activation and learned matching: tokens, the length of a window, and how many windows from
  // the stream's start activations are compared on.
  std::shared_ptr<TokenStream> stream;
  int64_t context = 0, windows = 256;

  LearnOptions learn;  // steps = 0: nothing is learned
  // The model that learned matching computes with, allocated, for the configuration that it is
  // given; without it a dense one in fp32 on the CPU.
  std::function<std::unique_ptr<Decoder>(const ModelConfig&)> point;
};

struct AlignReport {
  std::string residual, heads;  // what was done with them
  int64_t sweeps = 0;
  double distance_before = 0, distance_after = 0;  // |A - B|
  LearnReport learned;                             // zeros where nothing was learned
};

struct Matched {
  ModelConfig config;  // of both: where both are folded, a tied head has become one of its own
  NamedWeights a, b;
  bool moved_a = false;  // A's weights are others than they were; its function is the same
  AlignReport report;
};

// A, and B brought to it. Each computes what it did, to rounding. Both are dense models of one
// configuration. A's own weights stay, except where an orthogonal map of a tied model needs a head
// of its own, and in learned matching that moves both ends.
Matched match_models(Decoder& a, Decoder& b, const AlignOptions& options);

// Whether A's weights will change: known before anything is computed.
bool moves_first(const ModelConfig& config, const AlignOptions& options);

// Writes match_models()'s B into `b`. Fails (usage) where A would have to change.
AlignReport align(Decoder& a, Decoder& b, const AlignOptions& options);

}  // namespace refract
