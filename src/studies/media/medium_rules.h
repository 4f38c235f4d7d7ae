// The medium of a study, as the option --kind or --rules names it.
#pragma once
#include <string>
#include <vector>

namespace refract {

struct MediumChoice {
  std::string kind;   // a kind's name, or a table: {kind = "optical", q_levels = 64}
  std::string rules;  // a TOML file with [[transform]]
};

// `overrides` behind one that sets `transform`: the rules of the file, or the kind for all linear
// layers and attentions that it can stand for. Without a choice they are left as they are. Fails
// (usage) for two choices, and for a file without rules.
std::vector<std::string> with_medium(const MediumChoice& choice,
                                     const std::vector<std::string>& overrides);

}  // namespace refract
