#include "transforms/plan.h"

#include <fmt/format.h>

#include "core/error.h"

namespace refract {

void check_plan(const std::vector<PlanRow>& plan, const std::string& where) {
  std::string known;
  for (const PlanRow& row : plan) {
    if (!row.modules.empty()) known = row.modules.front();
  }
  for (const PlanRow& row : plan) {
    if (row.rule < 0 || !row.modules.empty()) continue;
    fail_usage(
        "{}: transform rule {} ('{}') matches no module, or rules before it matched them all; "
        "a name is for example '{}'",
        where, row.rule + 1, row.match, known);
  }
}

std::string transforms_toml(const Rules& rules, const std::vector<PlanRow>& plan) {
  std::string text;
  for (const PlanRow& row : plan) {
    text += fmt::format("# {} module{}, {} -> {} parameters\n", row.modules.size(),
                        row.modules.size() == 1 ? "" : "s", row.dense_parameters, row.parameters);
    if (row.rule < 0) {
      text.insert(text.rfind("# ") + 2, "left alone: ");
    } else {
      text += rules.to_toml(static_cast<size_t>(row.rule)) + "\n";
    }
  }
  return rules.empty() ? "" : text;
}

}  // namespace refract
