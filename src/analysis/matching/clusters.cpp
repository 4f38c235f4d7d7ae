#include "analysis/matching/clusters.h"

#include <cmath>
#include <limits>

namespace refract {

std::vector<std::vector<int64_t>> clusters_of(const std::vector<std::vector<double>>& matrix,
                                              double threshold) {
  const auto n = static_cast<int64_t>(matrix.size());
  std::vector<std::vector<int64_t>> clusters;
  std::vector<bool> seen(matrix.size(), false);
  for (int64_t first = 0; first < n; ++first) {
    if (seen[first]) continue;
    std::vector<bool> in_cluster(matrix.size(), false);
    std::vector<int64_t> open = {first};
    in_cluster[first] = true;
    while (!open.empty()) {
      const int64_t at = open.back();
      open.pop_back();
      for (int64_t next = 0; next < n; ++next) {
        if (in_cluster[next] || !(matrix[at][next] < threshold)) continue;
        in_cluster[next] = true;
        open.push_back(next);
      }
    }
    std::vector<int64_t> members;
    for (int64_t i = 0; i < n; ++i) {
      if (!in_cluster[i]) continue;
      members.push_back(i);
      seen[i] = true;
    }
    clusters.push_back(members);
  }
  return clusters;
}

MeanAndSpread mean_and_spread(const std::vector<double>& values) {
  MeanAndSpread result;
  result.count = static_cast<int64_t>(values.size());
  const auto n = static_cast<double>(values.size());
  for (double value : values) result.mean += value / n;
  double squares = 0;
  for (double value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation =
      values.size() < 2 ? std::numeric_limits<double>::quiet_NaN() : std::sqrt(squares / (n - 1));
  return result;
}

}  // namespace refract
