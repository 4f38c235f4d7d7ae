// What every benchmark is told on its command line.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace refract {

// Device, precision and how long to time.
struct BenchSettings {
  std::vector<std::string> overrides;  // key=value
  double seconds = 0.3;                // per figure
  bool json = false;

  // On CUDA bf16, where no train.precision is given.
  std::vector<std::string> with_precision() const;
};

// "16,512" of an option, or `otherwise` where it was not given; fails (usage) for what is not a
// list of numbers above 0.
std::vector<int64_t> parse_sizes(std::string text, const std::string& option,
                                 const std::string& otherwise = "");

}  // namespace refract
