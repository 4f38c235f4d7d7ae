#include "report/run/evaluation_record.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "core/files.h"
#include "core/untrusted.h"
#include "report/table.h"

namespace refract {
namespace {

constexpr const char* kEvaluationFile = "evaluation.json";

std::optional<int64_t> count_in(const nlohmann::json& record, const char* key) {
  const auto found = record.find(key);
  if (found == record.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<int64_t>();
}

EvaluationRow row_of(const std::string& task, const nlohmann::json& record,
                     const nlohmann::json& metric) {
  EvaluationRow row;
  row.task = task;
  row.metric = metric.at("name").get<std::string>();
  row.filter = metric.at("filter").get<std::string>();
  row.value = metric.at("value").get<double>();
  if (metric.at("stderr").is_number()) row.error = metric.at("stderr").get<double>();
  if (metric.at("higher_is_better").is_boolean())
    row.higher_is_better = metric.at("higher_is_better").get<bool>();
  row.shots = count_in(record, "num_fewshot");
  row.samples = count_in(record, "samples");
  row.model = record.at("model").get<std::string>();
  return row;
}

std::string or_nothing(const std::optional<int64_t>& value) {
  return value ? format_integer(*value) : "";
}

// "acc", and the filter that picked the answer where it is not the usual one.
std::string metric_name(const EvaluationRow& row) {
  std::string name = row.metric;
  if (row.filter != "none") name += " (" + row.filter + ")";
  if (row.higher_is_better)
    name += *row.higher_is_better ? ", higher is better" : ", lower is better";
  return name;
}

}  // namespace

std::vector<EvaluationRow> read_evaluation(const std::filesystem::path& run_folder) {
  const std::filesystem::path file = run_folder / kEvaluationFile;
  if (!std::filesystem::exists(file)) return {};
  const std::optional<nlohmann::json> tree = try_parse_json(read_file(file));
  if (!tree) return {};
  std::vector<EvaluationRow> rows;
  try {
    for (const auto& [task, record] : tree->at("tasks").items()) {
      for (const nlohmann::json& metric : record.at("metrics"))
        rows.push_back(row_of(task, record, metric));
    }
  } catch (const nlohmann::json::exception&) {
    return {};
  }
  return rows;
}

void add_evaluations(Page& page, const std::vector<RunRecord>& runs) {
  Table table({{"run"},
               {"task"},
               {"metric"},
               {"value", Align::kRight},
               {"standard error", Align::kRight},
               {"examples", Align::kRight},
               {"questions", Align::kRight},
               {"checkpoint"}});
  for (const RunRecord& run : runs) {
    for (const EvaluationRow& row : read_evaluation(run.folder)) {
      table.add_row({run.name, row.task, metric_name(row), format_fixed(row.value, 4),
                     row.error ? format_fixed(*row.error, 4) : "", or_nothing(row.shots),
                     or_nothing(row.samples),
                     std::filesystem::path(row.model).filename().string()});
    }
  }
  if (table.rows() == 0) return;
  page.heading("Tasks of lm-evaluation-harness");
  page.table(table);
}

}  // namespace refract
