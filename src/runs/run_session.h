// From a run's settings to a model, data and folder that a Trainer can work on.
#pragma once
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/dataset.h"
#include "formats/carried.h"
#include "formats/load_weights.h"
#include "model/decoder.h"
#include "runs/progress/reporter.h"
#include "train/repair/teacher.h"
#include "train/run_config.h"
#include "transforms/model_builder.h"

namespace refract {

// The data of a recipe with the tokenizer of the model it starts from; fills the settings of the
// model that follow from it and checks that they fit.
Dataset open_run_data(RunConfig& config, const std::filesystem::path& source, bool names_tokenizer);

struct RunSession {
  RunConfig config;  // resolved
  Dataset data;
  Carried carried;                   // of the folder that the run starts from
  std::unique_ptr<Decoder> model;    // with its starting values
  std::unique_ptr<Teacher> teacher;  // null without distill.weight; not longer than the model
  Rules rules;
  std::string transforms;  // transforms.toml, empty without rules
  std::string plan;        // its table, empty without rules
  int64_t steps = 0;
  std::vector<TakenOver> taken_over;
};

// Builds the model of a run, draws its values from run.seed and, where `source` is not empty, takes
// the weights of that folder. `where` names the recipe in errors. `names_tokenizer`: the recipe has
// a tokenizer of its own, so the folder's ids count for nothing.
RunSession open_session(RunConfig config, const Dataset& data, const std::filesystem::path& source,
                        at::Device device, const std::string& where, bool names_tokenizer = false);

// Makes run.dir, and writes config.toml and transforms.toml into it.
void make_run_folder(const std::filesystem::path& folder);
void write_run_settings(const RunSession& session);

// What a reporter needs to know of the run on this device.
RunReporter::Options reporter_options(const RunSession& session, at::Device device);

}  // namespace refract
