// The trace of an operator that only multiplies vectors, estimated (Hutchinson, 1989).
#pragma once
#include <cstdint>
#include <vector>

namespace refract {

// v^T A v of random signs v has the trace as its mean.
struct TraceEstimate {
  double mean = 0;
  double standard_error = 0;  // of the mean, from the samples' own spread; NaN below two
  int64_t probes = 0;
};
TraceEstimate trace_of(const std::vector<double>& samples);

}  // namespace refract
