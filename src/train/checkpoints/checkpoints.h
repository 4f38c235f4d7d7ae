// Checkpoints of a run: folders `checkpoints/step-00001000/` with a Hugging Face model and
// train_state.safetensors.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/system/new_folder.h"
#include "formats/checkpoint.h"
#include "model/decoder.h"
#include "train/state/train_position.h"
#include "train/step.h"

namespace refract {

class Checkpoints {
 public:
  explicit Checkpoints(const std::filesystem::path& run_folder);

  // Fails where the run's folder is no longer the one that it was: somebody removed or replaced it.
  // Writes a checkpoint beside its name, syncs and renames it. `extra` adds files (tokenizer,
  // settings) to the folder; `options` are save_model()'s. On failure (disk full) nothing with the
  // final name exists and the error says so; older checkpoints stay.
  std::filesystem::path save(Decoder& model, const OptimizerState& state,
                             const TrainPosition& position,
                             const std::function<void(const std::filesystem::path&)>& extra,
                             const SaveOptions& options = {});

  // Complete checkpoints, oldest first.
  std::vector<int64_t> steps() const;
  std::optional<int64_t> newest() const;
  std::filesystem::path path(int64_t step) const;

  // How far a checkpoint's run had come, without reading its weights.
  TrainPosition position(int64_t step) const;
  // Reads weights and optimizer state; fails where they belong to another model or optimizer.
  TrainPosition load(int64_t step, Decoder& model, OptimizerState& state) const;

  // Removes all but the newest `keep` (0: none are removed) and the permanent ones, and whatever an
  // interrupted save or removal left.
  void prune(int64_t keep, const std::vector<int64_t>& permanent) const;
  // Only the latter: folders "step-00001000.unfinished". Others of a user's stay.
  void remove_unfinished() const;

 private:
  void check_folder();

  std::filesystem::path run_, folder_;
  FileIdentity identity_;  // of the run's folder
};

}  // namespace refract
