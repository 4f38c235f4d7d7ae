#include "train/checkpoints/checkpoints.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "formats/load_weights.h"
#include "formats/safetensors.h"
#include "formats/safetensors_write.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
constexpr const char* kStateFile = "train_state.safetensors";
constexpr const char* kUnfinished = ".unfinished";

// "step-00001000" -> 1000; nothing for other names, unfinished ones among them.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with("step-")) return std::nullopt;
  int64_t step = 0;
  const char *begin = name.data() + 5, *end = name.data() + name.size();
  const auto [stop, error] = std::from_chars(begin, end, step);
  if (error != std::errc() || stop != end) return std::nullopt;
  return step;
}

// A tensor of the train state into the live one. What stands in the file need not be what its
// layout says.
void read_flat(const SafetensorsFile& saved, const std::string& name, const at::Tensor& live) {
  const TensorInfo* info = saved.find(name);
  if (!info || info->dtype != live.scalar_type() || at::IntArrayRef(info->shape) != live.sizes()) {
    fail("'{}' is damaged: it has no '{}' of {} values in {}", saved.path().string(), name,
         live.numel(), safetensors_dtype(live.scalar_type()));
  }
  live.copy_(saved.tensor(name));
}

at::Tensor guides(const ParameterArena& arena) {
  return arena.master().slice(0, arena.core_size(), arena.trainable_size());
}

// Adam's two moments, or SGD's buffer.
std::vector<std::pair<std::string, at::Tensor>> named_state(const OptimizerState& state) {
  if (!state.exp_avg_sq.defined()) return {{"momentum", state.exp_avg}};
  return {{"exp_avg", state.exp_avg}, {"exp_avg_sq", state.exp_avg_sq}};
}

}  // namespace

Checkpoints::Checkpoints(const fs::path& run_folder)
    : run_(run_folder), folder_(run_folder / "checkpoints"), identity_(run_folder) {}

void Checkpoints::check_folder() {
  const FileIdentity now(run_);
  if (!identity_.known()) identity_ = now;
  if (now == identity_) return;
  fail(
      "the run folder '{}' was removed or replaced while the run was going; it stops, because what "
      "it has written is gone",
      run_.string());
}

fs::path Checkpoints::path(int64_t step) const { return folder_ / fmt::format("step-{:08}", step); }

fs::path Checkpoints::save(Decoder& model, const OptimizerState& state,
                           const TrainPosition& position,
                           const std::function<void(const fs::path&)>& extra,
                           const SaveOptions& options) {
  check_folder();
  const fs::path final_path = path(position.step);
  fs::path partial = final_path;
  partial += kUnfinished;
  try {
    fs::remove_all(partial);
    fs::create_directories(partial);
    save_model(model, partial, options);
    extra(partial);
    // Last, because a checkpoint without it is never taken for a complete one.
    std::vector<TensorSource> tensors;
    for (const auto& [name, tensor] : named_state(state))
      tensors.push_back(source_of(name, tensor));
    // Guides are no part of the model that save_model() wrote.
    if (model.arena().has_guides()) tensors.push_back(source_of("guides", guides(model.arena())));
    std::map<std::string, std::string> metadata = to_metadata(position);
    metadata["layout"] = model.arena().layout();
    write_safetensors(partial / kStateFile, tensors, metadata);
    sync_path(partial);
    // Of an earlier, longer run that was resumed from before this step. The state goes first: what
    // is left of a removal that is cut off must not be taken for a checkpoint.
    fs::remove(final_path / kStateFile);
    fs::remove_all(final_path);
    fs::rename(partial, final_path);
    sync_path(folder_);
    if (!identity_.known()) identity_ = FileIdentity(run_);
  } catch (const fs::filesystem_error& error) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    fail("can't save the checkpoint '{}': {}; earlier checkpoints are untouched",
         final_path.string(), error.code().message());
  } catch (const Error& error) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    fail("can't save the checkpoint '{}': {}; earlier checkpoints are untouched",
         final_path.string(), error.what());
  }
  return final_path;
}

std::vector<int64_t> Checkpoints::steps() const {
  std::vector<int64_t> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const std::optional<int64_t> step = step_of(entry.path().filename().string());
    if (step && fs::exists(entry.path() / kStateFile)) found.push_back(*step);
  }
  std::sort(found.begin(), found.end());
  return found;
}

std::optional<int64_t> Checkpoints::newest() const {
  const std::vector<int64_t> all = steps();
  return all.empty() ? std::nullopt : std::optional(all.back());
}

TrainPosition Checkpoints::load(int64_t step, Decoder& model, OptimizerState& state) const {
  const fs::path file = path(step) / kStateFile;
  const SafetensorsFile saved(file);
  const auto& metadata = saved.metadata();
  const auto layout = metadata.find("layout");
  if (layout == metadata.end() || layout->second != model.arena().layout()) {
    fail_usage(
        "'{}' belongs to a model with other parameters; resume with the model settings it was "
        "trained with",
        path(step).string());
  }
  for (const auto& [name, tensor] : named_state(state)) {
    if (saved.find(name)) continue;
    fail_usage(
        "'{}' holds the state of another optimizer, without '{}'; resume with the optimizer.name "
        "it was trained with",
        path(step).string(), name);
  }
  load_weights(model, path(step));
  for (const auto& [name, tensor] : named_state(state)) read_flat(saved, name, tensor);
  if (model.arena().has_guides()) {
    read_flat(saved, "guides", guides(model.arena()));
    model.arena().refresh_compute();
  }
  return position(step);
}

TrainPosition Checkpoints::position(int64_t step) const {
  const fs::path file = path(step) / kStateFile;
  return read_train_position(SafetensorsFile(file).metadata(), file);
}

void Checkpoints::remove_unfinished() const {
  std::error_code ignored;
  std::vector<fs::path> ours;
  for (const auto& entry : fs::directory_iterator(folder_, ignored)) {
    const fs::path name = entry.path().filename();
    const std::optional<int64_t> step = step_of(name.stem().string());
    if (step && name.extension() == kUnfinished && name.stem() == path(*step).filename())
      ours.push_back(entry.path());
  }
  for (const fs::path& unfinished : ours) fs::remove_all(unfinished, ignored);
}

void Checkpoints::prune(int64_t keep, const std::vector<int64_t>& permanent) const {
  std::error_code ignored;
  remove_unfinished();
  if (keep == 0) return;
  std::vector<int64_t> removable;
  for (int64_t step : steps()) {
    if (std::find(permanent.begin(), permanent.end(), step) == permanent.end())
      removable.push_back(step);
  }
  const auto excess = static_cast<int64_t>(removable.size()) - keep;
  for (int64_t i = 0; i < excess; ++i) {
    // Under the name of an unfinished one, so that a removal that is cut off leaves none with parts
    // missing; the next call removes the rest.
    fs::path going = path(removable[i]);
    going += kUnfinished;
    fs::rename(path(removable[i]), going, ignored);
    fs::remove_all(going, ignored);
  }
}

}  // namespace refract
