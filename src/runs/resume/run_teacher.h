// The model that a run learns from: [distill].
#pragma once
#include <filesystem>
#include <memory>

#include "text/tokenizer.h"
#include "train/repair/teacher.h"
#include "train/run_config.h"

namespace refract {

// The folder of the teacher: distill.teacher's, or init.from's. Fails where there is none.
std::filesystem::path teacher_folder(const RunConfig& config);

// Null without distillation. The student holds its starting weights. Fails (usage) for a model that
// can't teach it, or whose tokenizer is another than the run's (null: unknown).
std::unique_ptr<Teacher> make_teacher(const RunConfig& config, Decoder& student,
                                      const Tokenizer* tokenizer);

// teacher.json of a run's folder: which teacher it learns from.
void write_teacher_record(const std::filesystem::path& run, const Teacher& teacher);
// Fails (usage) where the run remembers other weights than the teacher has.
void check_teacher(const std::filesystem::path& run, const Teacher& teacher);

}  // namespace refract
