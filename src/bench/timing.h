// Timing of work on a device, and the comparison that comes before it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace refract {

struct Timing {
  double median_ms = 0, fastest_ms = 0, slowest_ms = 0;
  int64_t repeats = 0;
};

// Runs `work` a few times to warm up, then for about `seconds` or three times, whatever is longer.
// On CUDA it is captured as a graph where `capture` is set, and timed by events around replays.
// Each of the median's samples holds as many runs as a millisecond takes.
Timing time_work(at::Device device, double seconds, const std::function<void()>& work,
                 bool capture = true);

// Wall time of one run, the device's work included.
double seconds_of(at::Device device, const std::function<void()>& work);

// The middle one of the values, the upper of two; there is at least one.
double median(std::vector<double> values);

// |a - b| / |b| in the Frobenius norm.
double relative_difference(const at::Tensor& a, const at::Tensor& b);

// The largest relative difference that two forms of a product of `dtype` may have: rounding of the
// inputs' precision over a few products in a row.
double allowed_difference(at::ScalarType dtype);

// Fails where a result differs from its reference by more than that; `what` names it.
void check_against(const at::Tensor& result, const at::Tensor& reference, const std::string& what);

}  // namespace refract
