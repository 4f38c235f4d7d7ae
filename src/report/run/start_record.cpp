#include "report/run/start_record.h"

#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "core/files.h"
#include "core/untrusted.h"
#include "report/append_file.h"
#include "text/utf8.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kStartsFile = "starts.jsonl";

}  // namespace

void write_start(const fs::path& run_folder, const StartRecord& start) {
  const fs::path path = run_folder / kStartsFile;
  if (start.from_step == 0) fs::remove(path);
  const json line = {{"time", start.time},
                     {"version", start.version},
                     {"command", repair_utf8(start.command)},
                     {"device", start.device},
                     {"precision", start.precision},
                     {"from_step", start.from_step},
                     {"steps", start.steps},
                     {"guided_steps", start.guided_steps},
                     {"parameters", start.parameters},
                     {"trainable_parameters", start.trainable_parameters},
                     {"training_flops", start.training_flops}};
  AppendFile(path, "the run's starts").append(line.dump() + "\n");
}

std::vector<StartRecord> read_starts(const fs::path& run_folder) {
  std::vector<StartRecord> starts;
  const fs::path path = run_folder / kStartsFile;
  if (!fs::exists(path)) return starts;
  std::istringstream lines(read_file(path));
  for (std::string text; std::getline(lines, text);) {
    const std::optional<json> parsed = try_parse_json(text);
    if (!parsed) continue;  // torn by a crash: a report of the rest is better than none
    try {
      const json& line = *parsed;
      StartRecord start;
      start.time = line.at("time").get<double>();
      start.version = line.at("version").get<std::string>();
      start.command = line.at("command").get<std::string>();
      start.device = line.at("device").get<std::string>();
      start.precision = line.at("precision").get<std::string>();
      start.from_step = line.at("from_step").get<int64_t>();
      start.steps = line.at("steps").get<int64_t>();
      start.guided_steps = line.at("guided_steps").get<int64_t>();
      start.parameters = line.at("parameters").get<int64_t>();
      start.trainable_parameters = line.at("trainable_parameters").get<int64_t>();
      start.training_flops = line.at("training_flops").get<double>();
      starts.push_back(std::move(start));
    } catch (const json::exception&) {
      continue;
    }
  }
  return starts;
}

}  // namespace refract
