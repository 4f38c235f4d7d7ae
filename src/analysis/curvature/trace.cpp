#include "analysis/curvature/trace.h"

#include <cmath>

#include "analysis/matching/clusters.h"

namespace refract {

TraceEstimate trace_of(const std::vector<double>& samples) {
  const MeanAndSpread all = mean_and_spread(samples);
  return {all.mean, all.deviation / std::sqrt(static_cast<double>(all.count)), all.count};
}

}  // namespace refract
