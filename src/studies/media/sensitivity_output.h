// The files of `refract sensitivity`.
#pragma once
#include <string>

#include "report/table.h"
#include "studies/media/sensitivity.h"

namespace refract {

// sensitivity.json, sensitivity.csv, report.html and, for a proposal, rules.toml.
void write_sensitivity(const SensitivityResult& result, const std::string& folder);

// What the command prints: the figures, the worst rows and roles, and where the files are.
std::string sensitivity_text(const SensitivityResult& result, const std::string& folder);

// The rows with the greatest damage first, of at most `most` rows; 0: all.
Table culprit_table(const SensitivityResult& result, size_t most);
// The roles with the least signal-to-noise ratio.
Table role_table(const SensitivityResult& result, size_t most);

}  // namespace refract
