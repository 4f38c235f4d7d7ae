// The head of a report about runs: when, where and how they were made, and what they cost.
#pragma once
#include <vector>

#include "report/page/page.h"
#include "report/run_record.h"

namespace refract {

// Of one run as facts of the page, of several as a table with a heading. Runs without a record of
// their starts show what their metrics say.
void add_head(Page& page, const std::vector<RunRecord>& runs);

}  // namespace refract
