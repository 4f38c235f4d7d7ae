#include "core/choices.h"

#include <fmt/ranges.h>

#include <algorithm>

#include "core/config.h"
#include "core/error.h"

namespace refract {

void require_choice(const std::string& option, const std::string& value,
                    const std::vector<std::string>& choices) {
  if (std::find(choices.begin(), choices.end(), value) != choices.end()) return;
  fail_usage("{} {} is not one of {}; did you mean {}?", option, value, fmt::join(choices, ", "),
             nearest_name(value, choices));
}

}  // namespace refract
