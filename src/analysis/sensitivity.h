// What a medium does to one role of a layer, and which modules should stay out of it.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

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

// A module that could stay digital.
struct DigitalChoice {
  std::string module;
  double gain = 0;             // nats that the loss wins
  double multiplications = 0;  // per token
};
// The modules with the greatest gain per multiplication, as far as `budget` multiplications reach.
// What wins nothing is left out.
std::vector<size_t> choose_digital(const std::vector<DigitalChoice>& modules, double budget);
// As many as fit of all modules, evenly spread over them: what a choice is compared with.
std::vector<size_t> choose_evenly(const std::vector<DigitalChoice>& modules, double budget);

}  // namespace refract
