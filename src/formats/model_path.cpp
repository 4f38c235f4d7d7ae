#include "formats/model_path.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <vector>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/paths.h"
#include "core/system/hub_repository.h"
#include "core/untrusted.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

bool has_weights(const fs::path& folder) {
  return fs::exists(folder / "config.json") &&
         (fs::exists(folder / "model.safetensors") ||
          fs::exists(folder / "model.safetensors.index.json"));
}

// The step of "step-00001000"; nothing for other names, such as those of unfinished checkpoints.
std::optional<int64_t> step_of(const std::string& name) {
  if (!name.starts_with("step-") || name.size() < 6 || name.size() > 23) return std::nullopt;
  if (name.find_first_not_of("0123456789", 5) != std::string::npos) return std::nullopt;
  return std::stoll(name.substr(5));
}

fs::path newest_checkpoint(const fs::path& run) {
  fs::path newest;
  int64_t newest_step = -1;
  for (const fs::directory_entry& entry : fs::directory_iterator(run / "checkpoints")) {
    const std::optional<int64_t> step = step_of(entry.path().filename().string());
    if (!step || *step <= newest_step || !has_weights(entry.path())) continue;
    newest = entry.path();
    newest_step = *step;
  }
  if (newest.empty()) fail("the run '{}' has no finished checkpoint yet", run.string());
  return newest;
}

// The GGUF file of a folder without other weights; none where there is none.
std::optional<fs::path> gguf_of_folder(const fs::path& folder) {
  std::error_code ignored;
  if (has_weights(folder) || fs::exists(folder / "pytorch_model.bin", ignored) ||
      fs::exists(folder / "pytorch_model.bin.index.json", ignored))
    return std::nullopt;
  std::vector<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, ignored)) {
    if (entry.path().extension() == ".gguf" && entry.is_regular_file(ignored))
      names.push_back(entry.path().filename().string());
  }
  if (names.empty()) return std::nullopt;
  std::sort(names.begin(), names.end());
  if (names.size() > 1)
    fail("'{}' holds several GGUF models; name one of them: {}", folder.string(),
         shown(fmt::format("{}", fmt::join(names, ", "))));
  return folder / names.front();
}

fs::path cached_model(const std::string& spec) {
  const auto repository = parse_hub_repository(spec);
  if (!repository) fail("there is no folder '{}'", spec);
  const std::string download = hub_download(HubKind::kModel, *repository);
  const auto found = find_snapshot(HubKind::kModel, *repository);
  if (!found) {
    fail("'{}' is neither a folder nor a model in the Hugging Face cache ({}); to download it: {}",
         spec, hub_cache().string(), download);
  }
  fs::path snapshot = *found;
  if (const auto file = gguf_of_folder(snapshot)) return *file;
  if (!has_weights(snapshot)) {
    fail(
        "the Hugging Face cache holds '{}' without config.json and model.safetensors ({}); to "
        "download it: {}",
        spec, snapshot.string(), download);
  }
  return snapshot;
}

}  // namespace

fs::path resolve_model_path(const std::string& spec) {
  fs::path path(expand_path(spec));
  if (!spec.empty() && fs::is_directory(path)) {
    const bool run = fs::is_directory(path / "checkpoints");
    if (!run) {
      if (const auto file = gguf_of_folder(path)) return *file;
    }
    if (fs::exists(path / "config.json")) return path;
    if (run) return newest_checkpoint(path);
    fail("'{}' is neither a model folder (it has no config.json) nor a run (it has no checkpoints)",
         spec);
  }
  if (!spec.empty() && is_gguf_file(path)) return path;
  if (!spec.empty() && fs::exists(path))
    fail("'{}' is a file and no GGUF model; name the folder that holds config.json", spec);
  return cached_model(spec);
}

}  // namespace refract
