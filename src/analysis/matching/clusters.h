// Which of several models are connected with each other.
#pragma once
#include <cstdint>
#include <vector>

namespace refract {

// Groups of models between which a chain of pairs runs whose value is below `threshold` (connected
// components; a value that is not a number connects nothing). matrix[i][j] belongs to the pair
// (i, j), is symmetric, and its diagonal is not looked at. Groups by their first member, members
// ascending.
std::vector<std::vector<int64_t>> clusters_of(const std::vector<std::vector<double>>& matrix,
                                              double threshold);

// Mean and sample standard deviation (NaN below two values).
struct MeanAndSpread {
  double mean = 0, deviation = 0;
  int64_t count = 0;
};
MeanAndSpread mean_and_spread(const std::vector<double>& values);

}  // namespace refract
