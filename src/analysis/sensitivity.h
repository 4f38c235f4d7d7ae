// What a medium does to one role of a layer.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "transforms/media/observer.h"

namespace refract {

struct RoleStatistics {
  std::string module, role;
  double largest = 0;    // |value|
  double median = 0;     // of |value|
  int64_t channel = -1;  // where the largest stands: its column, and its row
  int64_t row = -1;
  double snr_db = 0;  // 10 log10(sum v^2 / sum (v - Q(v))^2); infinite where they are equal
  double levels_in_use =
      0;  // share of the quantizer's levels that any value takes; of rows the mean
  double ratio() const { return median > 0 ? largest / median : largest > 0 ? 1e30 : 1; }
};
RoleStatistics role_statistics(const Observation& observation);

}  // namespace refract
