#include "bench/settings.h"

#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "ops/common/cuda_runtime.h"

namespace refract {

std::vector<std::string> BenchSettings::with_precision() const {
  if (seconds <= 0) fail_usage("--seconds {} must be positive", seconds);
  std::vector<std::string> all = overrides;
  const bool given = std::any_of(all.begin(), all.end(), [](const std::string& text) {
    return text.starts_with("train.precision=");
  });
  const bool on_cpu = std::any_of(all.begin(), all.end(), [](const std::string& text) {
    return text == "train.device=cpu" || text == "train.device=\"cpu\"";
  });
  if (!given && !on_cpu && cuda_runtime()) all.emplace_back("train.precision=bf16");
  return all;
}

std::vector<int64_t> parse_sizes(std::string text, const std::string& option,
                                 const std::string& otherwise) {
  if (text.empty()) text = otherwise;
  std::vector<int64_t> sizes;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    int64_t value = 0;
    const auto [rest, error] = std::from_chars(text.data() + begin, text.data() + end, value);
    if (error != std::errc() || rest != text.data() + end || value < 1)
      fail_usage("{} {} is not a list of sizes; write, for example, {} 16,512", option, text,
                 option);
    sizes.push_back(value);
    begin = end + 1;
  }
  return sizes;
}

}  // namespace refract
