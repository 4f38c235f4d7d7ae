// The report of one run or of several beside each other.
#pragma once
#include <string>
#include <vector>

#include "report/page/page.h"
#include "report/run_record.h"

namespace refract {

// Gives runs of equal names their whole path as name.
void make_names_unique(std::vector<RunRecord>& runs);

// Curves, final figures, ranges, transforms, samples, settings and their differences. Long curves
// are thinned to 1,500 points by averaging.
Page run_page(const std::vector<RunRecord>& runs);

// Parts of it, for other pages about runs.
void add_final_figures(Page& page, const std::vector<RunRecord>& runs);
void add_curves(Page& page, const std::vector<RunRecord>& runs);
void add_setting_differences(Page& page, const std::vector<RunRecord>& runs);

// Writes report.html into a run's folder and returns its path. Where that can't be done it warns,
// and the path is empty: a run is not lost for its report.
std::string write_run_report(const std::filesystem::path& run_folder);

}  // namespace refract
