// The page of a sweep.
#pragma once
#include <filesystem>

#include "report/page/page.h"
#include "report/sweep/sweep_report.h"

namespace refract {

// The table of its runs, the final loss over each key, and the runs' curves. The sweep's name is
// that of its folder.
Page sweep_page(const std::filesystem::path& folder, const SweepOutcome& outcome);

}  // namespace refract
