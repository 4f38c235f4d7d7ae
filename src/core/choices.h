// Options that take one of a few words.
#pragma once
#include <string>
#include <vector>

namespace refract {

// Fails (usage) where `value` is not among `choices`, and names the nearest one:
//     --by wieghts is not one of weights, activations; did you mean weights?
void require_choice(const std::string& option, const std::string& value,
                    const std::vector<std::string>& choices);

}  // namespace refract
