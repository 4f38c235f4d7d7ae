// The test of Kolmogorov and Smirnov: whether numbers come from a distribution.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <vector>

namespace refract::testing {

inline std::vector<double> sorted_values(const at::Tensor& x) {
  const at::Tensor wide = x.to(at::kDouble).contiguous().view(-1);
  const auto* data = wide.const_data_ptr<double>();
  std::vector<double> values(data, data + wide.numel());
  std::sort(values.begin(), values.end());
  return values;
}

inline double normal_distribution(double x) { return 0.5 * std::erfc(-x / std::numbers::sqrt2); }

// The largest distance between the empirical distribution of x and F, which may jump.
template <class F>
double ks_distance(const at::Tensor& x, const F& distribution) {
  const std::vector<double> values = sorted_values(x);
  const auto n = static_cast<double>(values.size());
  double largest = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    size_t last = i;  // equal values are one step
    while (last + 1 < values.size() && values[last + 1] == values[i]) ++last;
    const double at = distribution(values[i]);
    largest = std::max(largest, std::abs(static_cast<double>(last + 1) / n - at));
    if (last == i) largest = std::max(largest, std::abs(at - static_cast<double>(i) / n));
    i = last;
  }
  return largest;
}

// What the distance of n numbers exceeds once in 10^4 trials (the limit distribution).
inline double ks_limit(int64_t n) { return 2.225 / std::sqrt(static_cast<double>(n)); }

}  // namespace refract::testing
