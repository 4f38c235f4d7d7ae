#include "studies/compare/compare_row.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "analysis/energy/energy_constants.h"
#include "analysis/energy/model_energy.h"
#include "analysis/sensitivity.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/system/folder_lock.h"
#include "core/toml.h"
#include "core/untrusted.h"
#include "data/dataset.h"
#include "runs/loaded_model.h"
#include "runs/train.h"
#include "studies/media/calibrate.h"
#include "studies/media/study_tokens.h"
#include "train/evaluate.h"
#include "transforms/media/observer.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kRowFile = "row.json";
constexpr size_t kCulprits = 3;
constexpr int64_t kWatchedTokens = 256;

// Statistics of every role, each seen once.
class CulpritWatch : public MediumObserver {
 public:
  at::Tensor see(const Observation& seen) override {
    if (known_.insert({seen.module, seen.role}).second) all.push_back(role_statistics(seen));
    return seen.values;
  }
  void see_channels(const std::string&, const at::Tensor&, const at::Tensor&) override {}
  std::vector<RoleStatistics> all;

 private:
  std::set<std::pair<std::string, std::string>> known_;
};

std::vector<std::string> culprits_of(const LoadedModel& loaded, const std::string& text) {
  if (loaded.rules.empty()) return {};
  const StudyTokens tokens = study_tokens(loaded, {text}, kWatchedTokens, StudySplit::kValidation);
  CulpritWatch watch;
  {
    const at::NoGradGuard no_grad;
    const ObserverScope scope(watch);
    loaded.model->hidden(tokens.context(0, loaded.model->device()), tokens.batches[0].inputs);
  }
  std::stable_sort(watch.all.begin(), watch.all.end(),
                   [](const auto& a, const auto& b) { return a.snr_db < b.snr_db; });
  std::vector<std::string> culprits;
  for (const RoleStatistics& role : watch.all) {
    if (culprits.size() == kCulprits) break;
    culprits.push_back(fmt::format("{} {}: {:.1f} dB", role.module, role.role, role.snr_db));
  }
  return culprits;
}

RowFigures figures_of(const LoadedModel& loaded, const CompareRequest& request) {
  RowFigures figures;
  double seconds = 0;
  int64_t tokens = 0;
  for (const std::string& text : request.texts) {
    DataConfig data = loaded.config.data;
    data.path = {text};
    const std::shared_ptr<TokenStream> stream = open_corpus(data, loaded.tokenizer);
    check_tokens(*stream, loaded.config.model.vocab_size, "the corpus");
    const auto start = std::chrono::steady_clock::now();
    const int64_t windows =
        request.tokens > 0 ? std::max<int64_t>(1, request.tokens / data.context) : 0;
    const Evaluation found = evaluate(*loaded.model, *stream, data.context, windows);
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    tokens += found.tokens;
    figures.texts.push_back({text, found.loss, found.accuracy, found.tokens});
  }
  figures.tokens_per_second = static_cast<double>(tokens) / seconds;
  return figures;
}

json figures_json(const RowFigures& figures) {
  json texts = json::array();
  for (const TextFigures& text : figures.texts) {
    texts.push_back({{"text", text.text},
                     {"loss", text.loss},
                     {"perplexity", std::exp(text.loss)},
                     {"accuracy", text.accuracy},
                     {"tokens", text.tokens}});
  }
  return {{"texts", std::move(texts)}, {"tokens_per_second", figures.tokens_per_second}};
}

// JSON has no word for a loss that is not finite.
double number_from(const json& value) {
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

RowFigures figures_from(const json& tree) {
  RowFigures figures;
  figures.tokens_per_second = tree.at("tokens_per_second").get<double>();
  for (const json& text : tree.at("texts")) {
    figures.texts.push_back({text.at("text").get<std::string>(), number_from(text.at("loss")),
                             text.at("accuracy").get<double>(), text.at("tokens").get<int64_t>()});
  }
  return figures;
}

fs::path row_folder(const CompareRequest& request, const CompareRow& row) {
  return request.out / "rows" / row.folder;
}

// All that the figures depend on: rows of another request are measured again. The number of
// threads changes nothing but their rounding.
json key_of(const CompareRequest& request, const CompareRow& row) {
  std::vector<std::string> overrides = request.overrides;
  std::erase_if(overrides,
                [](const std::string& text) { return text.starts_with("train.threads="); });
  const std::string rules =
      row.medium.rules.empty() ? "" : read_file(row.medium.rules, "the rules");
  return {{"model", request.model},   {"overrides", overrides},     {"texts", request.texts},
          {"tokens", request.tokens}, {"energy", request.energy},   {"kind", row.medium.kind},
          {"rules", rules},           {"transform", row.transform}, {"calibrate", row.calibrate},
          {"repair", row.repair}};
}

void keep(const CompareRequest& request, const CompareRow& row, const RowResult& result) {
  json tree = row_json(result);
  tree["request"] = key_of(request, row);
  write_file_atomically(row_folder(request, row) / kRowFile, tree.dump(1) + "\n");
}

// The model that the row measures: the request's, or one with calibrated ranges.
struct RowModel {
  std::string path;
  std::vector<std::string> overrides;
};

RowModel prepared(const CompareRequest& request, const CompareRow& row) {
  RowModel model{request.model, row_overrides(row, request.overrides)};
  if (row.calibrate.empty()) return model;
  const fs::path folder = row_folder(request, row) / "calibrated";
  if (!fs::exists(folder / "config.json")) {
    CalibrateStudy study;
    study.model = request.model;
    study.overrides = model.overrides;
    const json repair = row.repair.empty() ? json::object() : json::parse(row.repair);
    const json paths = repair.value(json::json_pointer("/data/path"), json(request.texts));
    study.data = paths.is_string() ? std::vector<std::string>{paths.get<std::string>()}
                                   : paths.get<std::vector<std::string>>();
    study.search.method = row.calibrate;
    study.out = folder.string();
    calibrate(study);
  }
  return {folder.string(), request.overrides};
}

RowResult measured_before(const CompareRequest& request, const CompareRow& row,
                          const RowModel& model) {
  RowResult result;
  result.name = row.name;
  const LoadedModel loaded = load_model(model.path, model.overrides);
  result.before = figures_of(loaded, request);
  const EnergyTotal total = total_of(energy_per_token(
      *loaded.model, loaded.rules, loaded.config.data.context, energy_constants(request.energy)));
  result.joules = total.energy.total();
  result.beside = total.energy.beside;
  result.digital = total.digital;
  result.culprits = culprits_of(loaded, request.texts.front());
  return result;
}

// Trains the row's repair to its end, or until a signal: the run's folder, empty where it stopped.
std::string repaired(const CompareRequest& request, const CompareRow& row, const RowModel& model) {
  const fs::path folder = row_folder(request, row);
  json recipe = json::parse(row.repair);
  recipe["init"] = {{"from", fs::absolute(model.path).string()}};
  if (!fs::exists(model.path)) recipe["init"]["from"] = model.path;  // a name in the cache
  const fs::path file = folder / "repair.toml";
  write_file_atomically(file, to_toml(recipe));
  std::vector<std::string> overrides = row_overrides(row, request.overrides);
  overrides.push_back("run.dir=" + json((folder / "repair").string()).dump());
  const bool begun = fs::exists(folder / "repair" / "config.toml");
  const TrainedRun run = train_recipe(file.string(), overrides, begun);
  return run.result.finished ? run.folder : "";
}

}  // namespace

double RowFigures::loss() const {
  double sum = 0;
  for (const TextFigures& text : texts) sum += text.loss;
  return sum / static_cast<double>(texts.size());
}

json row_json(const RowResult& row) {
  json tree = {{"name", row.name},
               {"before", figures_json(row.before)},
               {"joules_per_token", row.joules},
               {"beside_per_token", row.beside},
               {"digital_joules_per_token", row.digital},
               {"culprits", row.culprits}};
  if (row.after) tree["after"] = figures_json(*row.after);
  return tree;
}

std::optional<KeptRow> kept_row(const CompareRequest& request, const CompareRow& row) {
  const fs::path file = row_folder(request, row) / kRowFile;
  if (!fs::exists(file)) return std::nullopt;
  const std::optional<json> tree = try_parse_json(read_file(file));
  if (!tree || !tree->is_object()) return std::nullopt;
  try {
    if (tree->at("request") != key_of(request, row)) return std::nullopt;
    KeptRow kept;
    RowResult& result = kept.result;
    result.name = tree->at("name").get<std::string>();
    result.before = figures_from(tree->at("before"));
    result.joules = tree->at("joules_per_token").get<double>();
    result.beside = tree->at("beside_per_token").get<double>();
    result.digital = tree->at("digital_joules_per_token").get<double>();
    result.culprits = tree->at("culprits").get<std::vector<std::string>>();
    if (tree->contains("after")) result.after = figures_from(tree->at("after"));
    kept.complete = result.after || row.repair.empty();
    return kept;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

bool measure_row(const CompareRequest& request, const CompareRow& row) {
  const fs::path folder = row_folder(request, row);
  std::optional<KeptRow> kept = kept_row(request, row);
  if (kept && kept->complete) return true;
  if (!kept) {  // what lies there is of another request, or of a call that came to nothing
    fs::remove_all(folder);
    fs::create_directories(folder);
  }
  const FolderLock lock(folder, "is being measured by another process");
  const RowModel model = prepared(request, row);
  if (!kept) {
    kept = KeptRow{measured_before(request, row, model)};
    keep(request, row, kept->result);
    log_info("{}: loss {:.4f}", row.name, kept->result.before.loss());
  }
  if (row.repair.empty()) return true;
  const std::string run = repaired(request, row, model);
  if (run.empty()) return false;
  kept->result.after = figures_of(load_model(run, request.overrides), request);
  keep(request, row, kept->result);
  log_info("{}: loss {:.4f} after repair", row.name, kept->result.after->loss());
  return true;
}

}  // namespace refract
