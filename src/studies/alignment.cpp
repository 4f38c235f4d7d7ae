#include "studies/alignment.h"

#include <algorithm>
#include <filesystem>

#include "core/choices.h"
#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/system/new_folder.h"
#include "data/dataset.h"
#include "formats/checkpoint.h"
#include "report/table.h"
#include "runs/same_model.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kTokensCompared = 32768;

std::shared_ptr<TokenStream> tokens_of(const AlignStudy& study, LoadedModel& a) {
  if (study.by != "activations") return nullptr;
  if (study.data.empty()) return open_dataset(a.config.data, a.tokenizer).train;
  a.config.data.path = study.data;
  return open_corpus(a.config.data, a.tokenizer);
}

}  // namespace

AlignOptions align_options(const std::string& by, const std::string& residual,
                           std::shared_ptr<TokenStream> tokens, int64_t context) {
  AlignOptions options;
  options.by = by;
  options.residual = residual;
  options.stream = std::move(tokens);
  options.context = context;
  options.windows = std::max<int64_t>(1, kTokensCompared / context);
  return options;
}

AlignReport align_models(LoadedModel& a, LoadedModel& b, const std::string& by,
                         const std::string& residual, std::shared_ptr<TokenStream> tokens) {
  const AlignReport report = align(
      *a.model, *b.model, align_options(by, residual, std::move(tokens), a.config.data.context));
  log_info("aligned by {}: distance {} -> {}, {} sweep{}, residual stream: {}", by,
           format_number(report.distance_before), format_number(report.distance_after),
           report.sweeps, report.sweeps == 1 ? "" : "s", report.residual);
  return report;
}

AlignReport align_and_save(const AlignStudy& study) {
  require_choice("--by", study.by, {"weights", "activations"});
  require_choice("--residual", study.residual, {"auto", "none", "permutation", "orthogonal"});
  NewFolder folder(study.out, "the aligned model");
  std::vector<std::string> overrides = study.overrides;
  overrides.emplace_back("train.device=cpu");
  LoadedModel a = load_model(study.a, overrides), b = load_model(study.b, overrides);
  if (const std::string difference = first_difference(a, b); !difference.empty())
    fail_usage("'{}' can't be aligned with '{}': {}", study.b, study.a, difference);
  const AlignReport report = align_models(a, b, study.by, study.residual, tokens_of(study, a));
  const fs::path& out = folder.path();
  save_model(*b.model, out, {.carried = b.carried});
  if (b.tokenizer) b.tokenizer->save(out);
  if (const fs::path settings = b.folder / "config.toml"; fs::exists(settings))
    write_file_atomically(out / "config.toml", read_file(settings, "the settings"));
  folder.commit();
  return report;
}

}  // namespace refract
