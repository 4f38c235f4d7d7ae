#include "studies/media/chips.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/error.h"
#include "core/progress.h"
#include "runs/loaded_model.h"
#include "studies/media/chips_output.h"
#include "studies/media/study_tokens.h"
#include "studies/study_folder.h"
#include "transforms/analog/chip.h"

namespace refract {
namespace {

using nlohmann::json;

// Whether a rule, or what it lies over, is analog with devices that can differ.
bool has_devices(const json& node) {
  if (!node.is_structured()) return false;
  if (node.is_object() && node.value("kind", json()) == "analog") {
    const std::string preset = node.value("preset", "ideal");
    if (preset != "ideal" && preset != "sram") return true;
  }
  return std::any_of(node.begin(), node.end(), has_devices);
}

double loss_of(const LoadedModel& loaded, const StudyTokens& tokens, const Chip& chip) {
  const at::NoGradGuard no_grad;
  const ChipScope scope(chip);
  double sum = 0;
  for (size_t batch = 0; batch < tokens.batches.size(); ++batch) {
    const ForwardContext context = tokens.context(batch, loaded.model->device(), batch == 0);
    sum += loaded.model->loss(context, tokens.batches[batch].inputs, tokens.batches[batch].targets)
               .sum.item<double>();
  }
  return sum / static_cast<double>(tokens.count);
}

}  // namespace

double seconds_of(const std::string& time) {
  const std::map<std::string, double> units = {{"", 1},
                                               {"s", 1},
                                               {"min", 60},
                                               {"h", 3600},
                                               {"d", 86400},
                                               {"month", 30 * 86400.0},
                                               {"y", 365 * 86400.0}};
  double value = 0;
  const auto [end, error] = std::from_chars(time.data(), time.data() + time.size(), value);
  const auto unit = units.find(std::string(end, time.data() + time.size()));
  if (error != std::errc() || unit == units.end() || !(value >= 0) || !std::isfinite(value)) {
    fail_usage("--times: '{}' is no time; write a number and s, min, h, d, month or y, as 1h",
               time);
  }
  return value * unit->second;
}

double ChipsRow::mean() const {
  return std::accumulate(losses.begin(), losses.end(), 0.0) / static_cast<double>(losses.size());
}

double ChipsRow::deviation() const {
  if (losses.size() < 2) return std::numeric_limits<double>::quiet_NaN();
  double squares = 0;
  for (const double loss : losses) squares += (loss - mean()) * (loss - mean());
  return std::sqrt(squares / static_cast<double>(losses.size() - 1));
}

ChipsResult measure_chips(const ChipsStudy& study) {
  const auto start = std::chrono::steady_clock::now();
  if (study.chips < 1) fail_usage("--chips {} must be at least 1", study.chips);
  ChipsResult result;
  for (const std::string& time : study.times) result.rows.push_back({time, seconds_of(time), {}});
  const LoadedModel loaded = load_model(study.model, with_medium(study.medium, study.overrides));
  if (loaded.rules.empty() || !has_devices(json::parse(loaded.rules.to_json()))) {
    fail_usage(
        "'{}' has no analog layers with devices, so that all chips are alike; give --kind "
        "\"{{kind = 'analog', preset = 'pcm'}}\", or set the preset of its rule",
        study.model);
  }
  const StudyTokens tokens =
      study_tokens(loaded, study.data, study.tokens, StudySplit::kValidation);
  const StudyFolder folder(study.out);
  result.tokens = tokens.count;
  result.first = study.first;
  result.ideal = loss_of(loaded, tokens, Chip{true});
  Progress progress("chips", study.chips * static_cast<int64_t>(result.rows.size()));
  int64_t done = 0;
  for (int64_t chip = study.first; chip < study.first + study.chips; ++chip) {
    for (ChipsRow& row : result.rows) {
      row.losses.push_back(loss_of(loaded, tokens, Chip{false, chip, row.seconds}));
      progress.update(++done, fmt::format("chip {} after {}", chip, row.name));
    }
  }
  progress.finish();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_chips(result, folder.path());
  return result;
}

}  // namespace refract
