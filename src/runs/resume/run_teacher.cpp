#include "runs/resume/run_teacher.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "formats/model_path.h"
#include "runs/model_folder.h"
#include "runs/same_model.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kRecord = "teacher.json";

}  // namespace

fs::path teacher_folder(const RunConfig& config) {
  return resolve_model_path(config.distill.teacher.empty() ? config.init.from
                                                           : config.distill.teacher);
}

std::unique_ptr<Teacher> make_teacher(const RunConfig& config, Decoder& student,
                                      const Tokenizer* tokenizer) {
  if (!config.distill.on()) return nullptr;
  const fs::path folder = teacher_folder(config);
  auto teacher = std::make_unique<Teacher>(student, folder, config.data.context);
  const auto own = folder_tokenizer(folder);
  if (!own || !tokenizer) return teacher;
  if (const std::string found = vocabulary_difference(*tokenizer, *own); !found.empty()) {
    fail_usage("the teacher '{}' reads other tokens than the run: {}", folder.string(), found);
  }
  return teacher;
}

void write_teacher_record(const fs::path& run, const Teacher& teacher) {
  const json record = {{"folder", teacher.folder().string()},
                       {"weights", teacher.fingerprint()},
                       {"own_parameters", teacher.own_parameters()}};
  write_file_atomically(run / kRecord, record.dump(1) + "\n");
}

void check_teacher(const fs::path& run, const Teacher& teacher) {
  const fs::path file = run / kRecord;
  if (!fs::exists(file)) return;
  const json record = parse_json(read_file(file), fmt::format("'{}'", file.string()));
  const json weights = record.is_object() ? record.value("weights", json()) : json();
  if (weights == teacher.fingerprint()) return;
  fail_usage(
      "the teacher '{}' has other weights than when the run '{}' began; a run keeps its teacher",
      teacher.folder().string(), run.string());
}

}  // namespace refract
