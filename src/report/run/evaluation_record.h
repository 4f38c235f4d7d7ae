// evaluation.json of a run's folder: what lm-evaluation-harness said of its model.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "report/page/page.h"
#include "report/run_record.h"

namespace refract {

struct EvaluationRow {
  std::string task, metric, filter;
  double value = 0;
  std::optional<double> error;            // of the value: a standard error
  std::optional<bool> higher_is_better;   // nothing where the task does not say
  std::optional<int64_t> shots, samples;  // examples before a question; questions
  std::string model;                      // the folder that was scored
};

// By task and metric, in the file's order; empty where there is no such file, or one that is not of
// its form.
std::vector<EvaluationRow> read_evaluation(const std::filesystem::path& run_folder);

// A section of a report; nothing where no run was evaluated.
void add_evaluations(Page& page, const std::vector<RunRecord>& runs);

}  // namespace refract
