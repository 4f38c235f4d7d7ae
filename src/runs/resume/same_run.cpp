#include "runs/resume/same_run.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/paths.h"
#include "core/toml.h"
#include "train/run_paths.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Of those that decide the outcome, what is over when a run has begun.
constexpr std::string_view kUsedUp[] = {"run.seed",         "run.noise_seed",     "data.order_seed",
                                        "data.context",     "init.from",          "init.adapter",
                                        "self_guided.mode", "train.only",         "distill.teacher",
                                        "data.documents",   "data.document_token"};
// Judged by what they come to: the tokens, and the keys that a preset sets.
constexpr std::string_view kJudgedElsewhere[] = {
    "data.path",  "data.validation",          "data.tokenizer", "data.text_field", "data.min_chars",
    "data.split", "data.validation_fraction", "data.seed",      "data.weights",    "model.preset"};

bool is_one_of(std::string_view key, std::span<const std::string_view> keys) {
  return std::find(keys.begin(), keys.end(), key) != keys.end();
}

RunConfig saved_settings(const fs::path& file) {
  json tree = read_toml(file);
  restore_saved_settings(tree, file);
  return make_run_config(tree, file.string());
}

// Seeds that stand for run.seed as that seed, paths in full: how it is written is no difference.
RunConfig plain(RunConfig config) {
  config.data.order_seed = config.order_seed();
  config.run.noise_seed = config.noise_seed();
  for (std::string* path : {&config.init.from, &config.init.adapter}) {
    std::error_code ignored;
    if (!path->empty() && fs::exists(*path, ignored))
      *path = fs::weakly_canonical(*path, ignored).string();
  }
  return config;
}

}  // namespace

void check_resumed_settings(const fs::path& run, const RunConfig& now) {
  const fs::path file = run / "config.toml";
  if (!fs::exists(file)) return;
  RunConfig before = plain(saved_settings(file)), after = plain(now);
  // A recipe leaves to the tokenizer what the run has written down.
  if (after.data.document_token < 0) before.data.document_token = after.data.document_token;
  Fields was, is;
  describe(was, before);
  describe(is, after);
  std::vector<std::string> refused, changed;
  for (const Field& field : is.all()) {
    const Field* old = was.find(field.key);
    if (field.decides == Decides::kNothing || is_one_of(field.key, kJudgedElsewhere)) continue;
    const json value = field.get(), earlier = old->get();
    if (value == earlier) continue;
    const bool fixed = field.decides == Decides::kFunction || is_one_of(field.key, kUsedUp);
    const auto text = [](const json& v) { return v.is_null() ? "not set" : to_toml_value(v); };
    (fixed ? refused : changed)
        .push_back(fmt::format("{} = {} (was {})", field.key, text(value), text(earlier)));
  }
  if (!refused.empty()) {
    fail_usage(
        "'{}' can't go on with {}: a run keeps what its model computes, what it trains, its start, "
        "its seeds and its windows. To go on with its own settings: refract train {} --resume",
        run.string(), fmt::join(refused, ", "), shell_word(run.string()));
  }
  if (!changed.empty()) log_info("changed on the way: {}", fmt::join(changed, ", "));
}

}  // namespace refract
