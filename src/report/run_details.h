// Parts of a report that not every run has.
#pragma once
#include <vector>

#include "report/page/page.h"
#include "report/run_record.h"

namespace refract {

// Each adds its heading and content, or nothing where no run has any.
void add_transforms(Page& page, const std::vector<RunRecord>& runs);
void add_ranges(Page& page, const std::vector<RunRecord>& runs);
void add_samples(Page& page, const std::vector<RunRecord>& runs);
void add_settings(Page& page, const std::vector<RunRecord>& runs);

}  // namespace refract
