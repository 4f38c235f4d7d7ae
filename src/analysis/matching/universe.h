// A common frame for several models: units, heads and channels of all of them in one order.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "model/decoder.h"

namespace refract {

struct UniverseReport {
  int64_t rounds = 0;  // through all models, the last of which changed nothing or was the last
                       // allowed
  // Root mean square of the models' distances from their mean.
  double spread_before = 0, spread_after = 0;
  std::vector<double> distances;  // of each model from the mean, at the end
};

// Changes the weights of dense models of one configuration, each of whose functions stays the same
// to rounding. Every model gets one permutation, so that any two of them fit by the same maps as
// all (cycle consistency). First each is matched with the mean of those before it; then, in rounds,
// each with the mean of all others, until nothing moves (Ainsworth et al., arXiv 2209.04836,
// algorithm 3). Each step is weight matching (align.h) and lowers the spread or leaves it.
// `residual`: "permutation" or "none". `mean` is a model of the same configuration, whose weights
// are the mean of all in the end.
UniverseReport match_universe(std::span<Decoder* const> models, Decoder& mean,
                              const std::string& residual = "permutation",
                              int64_t most_rounds = 20);

// Writes the mean of the models' weights into `mean`, added in double: of equal ones it is each of
// them, bit for bit.
void write_mean(std::span<Decoder* const> models, Decoder& mean);

}  // namespace refract
