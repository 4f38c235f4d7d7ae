#include "studies/connectivity/connectivity_config.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "core/config.h"
#include "core/error.h"
#include "train/batch_count.h"
#include "train/run_config.h"

namespace refract {
namespace {

using nlohmann::json;

void require(bool good, const std::string& where, const std::string& complaint) {
  if (!good) fail_usage("{}: {}", where, complaint);
}

template <class T>
bool distinct(const std::vector<T>& values) {
  return std::set<T>(values.begin(), values.end()).size() == values.size();
}

void check(const ConnectivityConfig& c, const std::string& where) {
  for (int64_t step : c.spawn)
    require(step >= 0, where, fmt::format("connectivity.spawn has {}, which is no step", step));
  require(!c.spawn.empty() && distinct(c.spawn), where,
          "connectivity.spawn takes at least one step, each once");
  require(distinct(c.seeds), where, "connectivity.seeds has a seed twice");
  for (int64_t seed : c.seeds)
    require(seed >= 0, where, fmt::format("connectivity.seeds has {}; seeds are 0 or above", seed));
  for (const std::string& split : c.splits) {
    require(split == "train" || split == "val", where,
            fmt::format("connectivity.splits has \"{}\"; there are train and val", split));
  }
  require(!c.splits.empty() && distinct(c.splits), where,
          "connectivity.splits takes train, val, or both, each once");
  batches_of(c);
  const size_t variants = variants_of(c).size();
  const bool across = c.pairs == "transforms";
  require(!across || variants >= 2, where,
          "connectivity.pairs = \"transforms\" takes two [[connectivity.variant]] tables or more");
  require(across || variants == 0, where,
          "[[connectivity.variant]] goes with connectivity.pairs = \"transforms\"");
  require(!across || c.spawn == std::vector<int64_t>{0}, where,
          "connectivity.pairs = \"transforms\" starts every variant from init.from, so "
          "connectivity.spawn stays [0]");
}

}  // namespace

// They decide which runs there are, and nothing about one: what sets a copy apart stands in its own
// settings.
void describe(Fields& fields, ConnectivityConfig& c) {
  using enum Decides;
  fields.add({"connectivity.spawn", kNothing}, c.spawn,
             "steps of the trunk at which copies are made; 0: its start");
  fields.add({"connectivity.copies", kNothing}, c.copies, "copies made at each of these steps",
             {.min = 2});
  fields.add({"connectivity.seeds", kNothing}, c.seeds,
             "the analysis is repeated with each of these as run.seed; empty: run.seed only");
  fields.add({"connectivity.pairs", kNothing}, c.pairs,
             "what is compared: twins from one random start, fine-tunes of init.from, or variants "
             "of the transform rules trained from init.from",
             {"twins", "fine_tune", "transforms"});
  fields.add({"connectivity.differ", kNothing}, c.differ,
             "how copies of one start differ: in the order of the data, in the noise, in both or "
             "in nothing; auto: both, or nothing with pairs = \"transforms\"",
             {"auto", "order", "noise", "both", "nothing"});
  fields.add_raw({"connectivity.variant", kNothing}, c.variant,
                 "with pairs = \"transforms\": tables of name and transform (rules as in "
                 "[[transform]]; none: dense)");
  fields.add({"connectivity.alphas", kNothing}, c.alphas, "points on a path, both ends included",
             {.min = 2, .max = kMostAlphas});
  fields.add({"connectivity.batches", kNothing}, c.batches,
             "\"all\" of a split, or a number of batches of train.batch sequences from its start");
  fields.add({"connectivity.splits", kNothing}, c.splits, "which splits to evaluate: train, val");
  fields.add({"connectivity.align", kNothing}, c.align, "align B with A before the path",
             {"none", "weights", "activations"});
  fields.add({"connectivity.engine", kNothing}, c.engine,
             "how points between two runs are evaluated",
             {"auto", "batched", "prefixes", "single"});
  fields.add(
      {"connectivity.threshold", kNothing}, c.threshold,
      "a pair is connected if its loss barrier is below this fraction of the end points' mean loss",
      {.min = 0});
  fields.add({"connectivity.side_by_side", kNothing}, c.side_by_side,
             "copies that are trained at the same time; 0: as many as CPU cores, 4 on a GPU",
             {.min = 0});
}

ConnectivityConfig make_connectivity_config(const json& tree, const std::string& where) {
  ConnectivityConfig config;
  if (!tree.contains("connectivity")) return config;
  Fields fields;
  describe(fields, config);
  fields.set_all({{"connectivity", tree.at("connectivity")}}, where);
  check(config, where);
  return config;
}

void register_connectivity_table() {
  register_recipe_table("connectivity", make_connectivity_config);
}

std::vector<ConnectivityVariant> variants_of(const ConnectivityConfig& config) {
  std::vector<ConnectivityVariant> variants;
  if (config.variant.empty()) return variants;
  std::set<std::string> names;
  const json tables = json::parse(config.variant);
  for (const json& table : tables) {
    const auto name = table.is_object() ? table.find("name") : table.end();
    if (!table.is_object() || name == table.end() || !name->is_string())
      fail_usage("[[connectivity.variant]]: each table needs a name");
    for (const auto& [key, value] : table.items()) {
      if (key != "name" && key != "transform")
        fail_usage("[[connectivity.variant]]: unknown key '{}'; the keys are name and transform",
                   key);
    }
    ConnectivityVariant variant{name->get<std::string>(), ""};
    // ~ stands between two names in that of a path's file.
    if (!names.insert(variant.name).second || variant.name.empty() || variant.name == "." ||
        variant.name == ".." || variant.name.find_first_of("/\\~") != std::string::npos) {
      fail_usage("[[connectivity.variant]]: \"{}\" can't be the name of a folder", variant.name);
    }
    if (table.contains("transform")) variant.transform = table.at("transform").dump();
    variants.push_back(variant);
  }
  return variants;
}

int64_t batches_of(const ConnectivityConfig& config) {
  return batch_count(config.batches, "connectivity.batches");
}

}  // namespace refract
