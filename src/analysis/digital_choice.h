// Which modules of a model should stay out of a medium, where a share of the multiplications may.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace refract {

// A module that could stay digital.
struct DigitalChoice {
  std::string module;
  double gain = 0;             // nats that the medium costs there alone
  double multiplications = 0;  // per token
};
using Chosen = std::vector<size_t>;  // places in a list of such modules

// The modules with the greatest gain, or gain per multiplication, as far as `budget`
// multiplications reach. What wins nothing is left out.
Chosen choose_by_gain(const std::vector<DigitalChoice>& modules, double budget);
Chosen choose_by_worth(const std::vector<DigitalChoice>& modules, double budget);

// The loss with the medium everywhere but in these modules.
using LossWithout = std::function<double(const Chosen&)>;
// Adds modules to `chosen` one by one: of those that promise most, each is left out beside what is
// chosen already, and the one is taken that wins most per multiplication then. `most` losses are
// measured; what is left of the budget after those is spent by worth.
Chosen choose_in_turn(const std::vector<DigitalChoice>& modules, double budget,
                      const Chosen& chosen, const LossWithout& loss, int64_t most);

// Choices that know nothing of the medium, each of at most `budget` multiplications.
struct UniformChoice {
  std::string name;
  Chosen chosen;
};
// Evenly spread over all modules, the first of them, the last of them, and three random draws.
std::vector<UniformChoice> uniform_choices(const std::vector<DigitalChoice>& modules,
                                           double budget);

}  // namespace refract
