// The study of `refract connectivity`: trains the runs of an instability analysis and measures the
// paths between them.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "studies/connectivity/connectivity_output.h"

namespace refract {

// Trains and measures what is missing in run.dir of the recipe, and writes connectivity.json,
// connectivity.csv and report.html there. Nothing where a signal stopped the training; what was
// trained is saved, and the same call goes on with it. Wrong settings, and a folder of other
// settings or with a damaged run, fail before anything is trained.
std::optional<ConnectivityResult> run_connectivity(const std::string& recipe,
                                                   const std::vector<std::string>& overrides);

}  // namespace refract
