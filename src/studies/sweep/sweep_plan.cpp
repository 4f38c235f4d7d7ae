#include "studies/sweep/sweep_plan.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>

#include "core/error.h"
#include "report/sweep/sweep_report.h"
#include "runs/open_recipe.h"
#include "runs/plan.h"
#include "runs/progress/time_budget.h"
#include "train/run_config.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr size_t kLongestName = 120;  // file systems take 255 bytes

// Values at the top level of a comma-separated list.
std::vector<std::string> split_values(const std::string& text) {
  std::vector<std::string> values(1);
  int depth = 0;
  char quote = 0;
  for (const char c : text) {
    if (quote != 0) {
      if (c == quote) quote = 0;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if (c == ']' || c == '}') {
      --depth;
    }
    if (c == ',' && depth == 0 && quote == 0) {
      values.emplace_back();
    } else {
      values.back() += c;
    }
  }
  return values;
}

// What a folder's name may hold of a value: "org/name" -> "org_name", quotes dropped.
std::string in_name(const std::string& text) {
  std::string out;
  for (const char c : text) {
    const bool plain = std::isalnum(static_cast<unsigned char>(c)) || std::strchr("._+-", c);
    if (plain) {
      out += c;
    } else if (c != '"' && c != '\'' && c != ' ') {
      out += '_';
    }
  }
  return out;
}

std::string run_name(const std::vector<std::string>& short_names,
                     const std::vector<std::string>& values) {
  std::string name;
  for (size_t i = 0; i < values.size(); ++i) {
    name += (i > 0 ? "," : "") + short_names[i] + "=" + in_name(values[i]);
  }
  if (name.size() <= kLongestName) return name;
  const size_t hash = std::hash<std::string>()(fmt::format("{}", fmt::join(values, ",")));
  return fmt::format("{}-{:08x}", name.substr(0, kLongestName - 9), hash & 0xffffffff);
}

// All that stands in the recipe, also what decides nothing about the weights: a run is only taken
// as done where its losses, checkpoints and samples are those asked for. But a sweep gives each run
// its folder and its share of the threads.
std::string settings_of(const std::string& recipe, const std::vector<std::string>& overrides) {
  json tree = read_recipe(recipe, overrides);
  if (tree.contains("run")) tree["run"].erase("dir");
  if (tree.contains("train")) tree["train"].erase("threads");
  return tree.dump();
}

void check_run(const std::string& recipe, const std::vector<std::string>& overrides) {
  constexpr int64_t kSomeVocabulary = 256;  // the tokenizer's is not known yet, nor does it matter
  RunConfig config = open_recipe(recipe, overrides).config;
  resolve(config.model, config.model.vocab_size == 0 ? kSomeVocabulary : 0, config.data.context);
  const TransformedModel model = plan_model(config, recipe);
  const int64_t steps = resolve_steps(config, model.decoder->arena().count());
  if (steps == 0) {
    fail_usage("{}: set train.steps or train.tokens{}", recipe,
               config.train.minutes > 0
                   ? "; with train.minutes each run would have a number of steps of its own"
                   : "");
  }
  warn_of_long_warmup(config, steps);
}

void check_keys(const std::vector<SweptKey>& keys) {
  std::set<std::string> seen;
  for (const SweptKey& key : keys) {
    if (!seen.insert(key.key).second) fail_usage("--over {} is given twice", key.key);
    if (key.key == "run.dir")
      fail_usage("--over run.dir is not possible: the sweep names its runs' folders");
    std::set<std::string> values;
    for (const std::string& value : key.values) {
      if (!values.insert(value).second) fail_usage("--over {}: {} is given twice", key.key, value);
    }
  }
}

}  // namespace

SweptKey parse_swept_key(const std::string& text) {
  const size_t equals = text.find('=');
  if (equals == std::string::npos || equals == 0) {
    fail_usage("--over '{}': write key=value,value, e.g. optimizer.lr=1e-4,1e-3", text);
  }
  SweptKey key{text.substr(0, equals), split_values(text.substr(equals + 1))};
  for (const std::string& value : key.values) {
    if (value.empty()) fail_usage("--over '{}': a value is empty", text);
  }
  return key;
}

std::vector<PlannedRun> plan_sweep(const std::string& recipe,
                                   const std::vector<std::string>& overrides,
                                   const std::vector<SweptKey>& keys) {
  check_keys(keys);
  std::vector<std::string> names;
  size_t count = 1;
  for (const SweptKey& key : keys) {
    names.push_back(key.key);
    count *= key.values.size();
  }
  const std::vector<std::string> short_names = short_keys(names);
  std::vector<PlannedRun> planned;
  std::set<std::string> taken;
  for (size_t index = 0; index < count; ++index) {
    PlannedRun next{.overrides = overrides};
    size_t stride = count;
    for (const SweptKey& key : keys) {
      stride /= key.values.size();
      next.run.values.push_back(key.values[index / stride % key.values.size()]);
      next.overrides.push_back(key.key + "=" + next.run.values.back());
    }
    next.run.name = run_name(short_names, next.run.values);
    if (!taken.insert(next.run.name).second) {
      fail_usage("two runs of the sweep would be named '{}'", next.run.name);
    }
    try {
      check_run(recipe, next.overrides);
      next.run.settings = settings_of(recipe, next.overrides);
    } catch (const Error& error) {
      throw Error(fmt::format("run '{}': {}", next.run.name, error.what()), error.code());
    }
    planned.push_back(std::move(next));
  }
  return planned;
}

SweepRecord merge_sweep(const std::filesystem::path& folder, const std::string& recipe,
                        const std::vector<SweptKey>& keys, const std::vector<PlannedRun>& planned) {
  SweepRecord sweep = read_sweep(folder).value_or(SweepRecord{});
  std::vector<std::string> names;
  for (const SweptKey& key : keys) names.push_back(key.key);
  if (!sweep.runs.empty() && sweep.keys != names) {
    fail_usage("'{}' already holds a sweep over {}; choose another folder with --out",
               folder.string(), fmt::join(sweep.keys, ", "));
  }
  sweep.recipe = recipe;
  sweep.keys = names;
  for (const PlannedRun& next : planned) {
    const auto old = std::ranges::find(sweep.runs, next.run.name, &SweepRun::name);
    if (old == sweep.runs.end()) {
      sweep.runs.push_back(next.run);
    } else if (json::parse(old->settings) != json::parse(next.run.settings)) {
      const json difference =
          json::diff(json::parse(old->settings), json::parse(next.run.settings));
      fail_usage(
          "'{}' already holds the run '{}' with other settings ({}); choose another folder with "
          "--out, or remove that run's folder and its entry",
          folder.string(), next.run.name, difference.front().value("path", ""));
    }
  }
  return sweep;
}

}  // namespace refract
