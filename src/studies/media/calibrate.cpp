#include "studies/media/calibrate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/maximum.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/system/new_folder.h"
#include "core/toml.h"
#include "formats/checkpoint.h"
#include "runs/loaded_model.h"
#include "studies/media/study_tokens.h"

namespace refract {

namespace fs = std::filesystem;
using nlohmann::json;

struct Calibrator::Entry {
  std::string module, role;
  at::Tensor range;
  QuantizerShape shape;
  RangeStatistics statistics;
};

Calibrator::Calibrator(RangeSearch search) : search_(std::move(search)) {
  check_range_search(search_);
}
Calibrator::~Calibrator() = default;

at::Tensor Calibrator::see(const Observation& seen) {
  if (!seen.range.defined()) return seen.values;
  const auto known = std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    return entry.module == seen.module && entry.role == seen.role;
  });
  if (known != entries_.end()) {
    if (seen.role != "w") known->statistics.add(seen.values);  // a weight is the same every time
    return seen.values;
  }
  const int64_t rows = seen.range.dim() > 1 ? seen.range.size(0) : 0;
  entries_.push_back(
      {seen.module, seen.role, seen.range, {seen.levels, seen.lut_min}, RangeStatistics(rows)});
  entries_.back().statistics.add(seen.values);
  return seen.values;
}

void Calibrator::see_channels(const std::string&, const at::Tensor& values,
                              const at::Tensor& largest) {
  if (channels_set_) return;
  const at::Tensor seen =
      values.detach().abs().reshape({-1, values.size(-1)}).amax(0).to(largest.scalar_type());
  for (auto& [buffer, known] : channels_) {
    if (!buffer.is_same(largest)) continue;
    known = at::maximum(known, seen);
    return;
  }
  channels_.emplace_back(largest, seen);
}

bool Calibrator::set_channels() {
  if (channels_.empty()) return false;
  for (const auto& [buffer, seen] : channels_) buffer.copy_(seen);
  entries_.clear();
  channels_set_ = true;
  return true;
}

std::vector<CalibratedRange> Calibrator::set_ranges() {
  std::vector<CalibratedRange> all;
  for (const Entry& entry : entries_) {
    const at::Tensor range = entry.statistics.range(search_, entry.shape);
    const at::Tensor widest = entry.statistics.range({}, entry.shape);
    entry.range.copy_(range);
    const auto end = [](const at::Tensor& of, int64_t side) {
      const at::Tensor ends = of.view({-1, 2}).select(1, side);
      return (side == 0 ? ends.min() : ends.max()).item<double>();
    };
    const int64_t rows = entry.range.dim() > 1 ? entry.range.size(0) : 0;
    all.push_back({entry.module, entry.role, rows, end(widest, 0), end(widest, 1), end(range, 0),
                   end(range, 1)});
  }
  return all;
}

namespace {

void run(Decoder& model, const StudyTokens& tokens, Calibrator& calibrator) {
  const at::NoGradGuard no_grad;
  const ObserverScope scope(calibrator);
  for (size_t i = 0; i < tokens.batches.size(); ++i)
    model.hidden(tokens.context(i, model.device()), tokens.batches[i].inputs);
}

void write_folder(const LoadedModel& loaded, const fs::path& out) {
  json settings = {{"transform", json::parse(loaded.config.transform)},
                   {"data", {{"context", loaded.config.data.context}}}};
  write_file_atomically(out / "config.toml", to_toml(settings));
  if (loaded.tokenizer) loaded.tokenizer->save(out);
  SaveOptions options;
  if (loaded.tokenizer && loaded.tokenizer->end_of_text()) {
    options.ids.bos = loaded.tokenizer->end_of_text();
    options.ids.eos = {*loaded.tokenizer->end_of_text()};
  }
  save_model(*loaded.model, out, options);
}

}  // namespace

CalibrateResult calibrate(const CalibrateStudy& study) {
  const auto start = std::chrono::steady_clock::now();
  Calibrator calibrator(study.search);
  NewFolder folder(study.out, "the calibrated model");
  LoadedModel loaded = load_model(study.model, with_medium(study.medium, study.overrides));
  if (loaded.rules.empty()) {
    fail_usage("'{}' has no transform rules, so there is no range to set; give --kind or --rules",
               study.model);
  }
  const StudyTokens tokens = study_tokens(loaded, study.data, study.tokens, StudySplit::kTraining);
  run(*loaded.model, tokens, calibrator);
  if (calibrator.set_channels()) run(*loaded.model, tokens, calibrator);
  CalibrateResult result;
  result.ranges = calibrator.set_ranges();
  if (result.ranges.empty()) {
    fail_usage("no layer under the rules of '{}' keeps a range: there is nothing to calibrate",
               study.model);
  }
  result.tokens = tokens.count;
  write_folder(loaded, folder.path());
  folder.commit();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Table calibrate_table(const CalibrateResult& result) {
  Table table({{"module"},
               {"role"},
               {"rows", Align::kRight},
               {"min", Align::kRight},
               {"max", Align::kRight},
               {"lo", Align::kRight},
               {"hi", Align::kRight}});
  for (const CalibratedRange& range : result.ranges) {
    table.add_row({range.module, range.role, range.rows > 0 ? format_integer(range.rows) : "",
                   format_number(range.min), format_number(range.max), format_number(range.lo),
                   format_number(range.hi)});
  }
  return table;
}

json calibrate_json(const CalibrateStudy& study, const CalibrateResult& result) {
  json ranges = json::array();
  for (const CalibratedRange& range : result.ranges) {
    ranges.push_back({{"module", range.module},
                      {"role", range.role},
                      {"rows", range.rows},
                      {"min", range.min},
                      {"max", range.max},
                      {"lo", range.lo},
                      {"hi", range.hi}});
  }
  return {{"folder", study.out},
          {"method", study.search.method},
          {"tokens", result.tokens},
          {"seconds", result.seconds},
          {"ranges", std::move(ranges)}};
}

}  // namespace refract
