#include "studies/media/sensitivity.h"

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "analysis/flops.h"
#include "core/error.h"
#include "core/progress.h"
#include "model/layer_plan.h"
#include "studies/media/medium_bench.h"
#include "studies/media/sensitivity_output.h"
#include "studies/study_folder.h"

namespace refract {
namespace {

using nlohmann::json;
using Names = MediumBench::Names;

constexpr double kNotMeasured = std::numeric_limits<double>::quiet_NaN();

// Quantizes one role and leaves the others as they are.
class OneRole : public MediumObserver {
 public:
  explicit OneRole(std::string role) : role_(std::move(role)) {}
  at::Tensor see(const Observation& seen) override {
    return seen.role == role_ ? seen.quantize(seen.values) : seen.values;
  }
  void see_channels(const std::string&, const at::Tensor&, const at::Tensor&) override {}

 private:
  std::string role_;
};

struct Site {
  std::string group, name;
  Names modules;
  int64_t first = 0;  // layer
};

// The modules that a rule puts into a medium, with their multiplications per token.
struct Module {
  std::string name, type;
  int64_t layer = 0;
  double multiplications = 0;
};

std::vector<Module> modules_of(const Decoder& model, const Rules& rules, int64_t length) {
  std::vector<Module> all;
  const auto add = [&](const std::string& name, int64_t layer, double multiplications) {
    const int rule = rules.find(name);
    if (rule < 0 || !rules.all()[static_cast<size_t>(rule)].make) return;
    all.push_back({name, name.substr(name.rfind('.') + 1), layer, multiplications});
  };
  for (size_t i = 0; i < model.plan().layers.size(); ++i) {
    const LayerPlan& layer = model.plan().layers[i];
    const auto index = static_cast<int64_t>(i);
    for (const ProjectionSpec* group : projections_of(layer)) {
      for (const LinearSpec& member : group->members) {
        add(member.name, index, static_cast<double>(member.in_features * member.out_features));
      }
      if (group != &layer.qkv) continue;
      const AttentionSpec& attention = layer.attention;
      add(attention.name, index,  // both products
          2 * mean_keys(length - 1, attention.window) *
              static_cast<double>(attention.num_heads * attention.head_dim));
    }
  }
  return all;
}

std::vector<Site> sites_of(const std::vector<Module>& modules, const std::string& by) {
  std::vector<Site> sites;
  std::map<std::string, size_t> places;
  for (const Module& module : modules) {
    const std::string name = by == "types"    ? module.type
                             : by == "layers" ? std::to_string(module.layer)
                                              : module.name;
    const auto [place, added] = places.insert({name, sites.size()});
    if (added) sites.push_back({by, name, {}, module.layer});
    sites[place->second].modules.insert(module.name);
  }
  return sites;
}

Names without(const Names& all, const Names& some) {
  Names rest;
  for (const std::string& name : all) {
    if (!some.contains(name)) rest.insert(name);
  }
  return rest;
}

void check(const SensitivityStudy& study) {
  const std::vector<std::string> known = {"types", "layers", "modules", "roles"};
  for (const std::string& by : study.by) {
    if (std::find(known.begin(), known.end(), by) == known.end())
      fail_usage("--by {} is not one of types, layers, modules, roles", by);
  }
  for (const double share : study.keep_digital) {
    if (!(share > 0 && share < 1))
      fail_usage("--keep-digital takes shares between 0 and 100%, with commas");
  }
  if (study.uniform && study.keep_digital.empty())
    fail_usage("--uniform compares a proposal; add --keep-digital");
}

std::vector<std::string> role_names(const std::vector<RoleStatistics>& roles) {
  std::vector<std::string> names;
  for (const RoleStatistics& role : roles) {
    if (std::find(names.begin(), names.end(), role.role) == names.end()) names.push_back(role.role);
  }
  return names;
}

}  // namespace

SensitivityResult measure_sensitivity(const SensitivityStudy& study) {
  const auto start = std::chrono::steady_clock::now();
  check(study);
  const StudyFolder folder(study.out);
  MediumBench bench(study.model, study.medium, study.overrides, study.data, study.tokens);
  SensitivityResult result;
  const std::vector<Module> modules = modules_of(bench.model(), bench.rules(), bench.length());
  Names all;
  for (const Module& module : modules) all.insert(module.name);
  result.tokens = bench.tokens();
  result.dense = bench.keep({}, "dense");
  result.medium = bench.keep(all, "medium");
  result.roles = bench.role_statistics_of_first_batch();
  std::vector<std::string> groups = study.by;
  if (!study.keep_digital.empty() &&
      std::find(groups.begin(), groups.end(), "modules") == groups.end())
    groups.emplace_back("modules");
  std::vector<Site> sites;
  for (const std::string& by : groups) {
    if (by == "roles") continue;
    for (Site& site : sites_of(modules, by)) sites.push_back(std::move(site));
  }
  Progress progress("sensitivity", static_cast<int64_t>(sites.size()));
  std::vector<DigitalChoice> choices;
  for (size_t i = 0; i < sites.size(); ++i) {
    const Site& site = sites[i];
    SensitivityRow row{site.group, site.name};
    row.only = bench.loss(site.modules, "dense", site.first);
    // Of single modules in one medium nothing else is to be learned: the others ruin it as before.
    row.except = site.group == "modules"
                     ? kNotMeasured
                     : bench.loss(without(all, site.modules), "medium", site.first);
    if (site.group == "modules") {
      choices.push_back(
          {site.name, row.only - result.dense, modules[choices.size()].multiplications});
    }
    result.rows.push_back(row);
    progress.update(static_cast<int64_t>(i) + 1, site.name);
  }
  progress.finish();
  if (std::find(groups.begin(), groups.end(), "roles") != groups.end()) {
    for (const std::string& name : role_names(result.roles)) {
      OneRole one(name);
      result.rows.push_back({"roles", name, bench.observed_loss(one), kNotMeasured});
    }
  }
  std::stable_sort(result.roles.begin(), result.roles.end(),
                   [](const auto& a, const auto& b) { return a.snr_db < b.snr_db; });
  if (!study.keep_digital.empty()) {
    std::vector<int64_t> layers;
    for (const Module& module : modules) layers.push_back(module.layer);
    result.proposals = propose_digital(bench, choices, layers, study.keep_digital, study.uniform);
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_sensitivity(result, study.out);
  return result;
}

}  // namespace refract
