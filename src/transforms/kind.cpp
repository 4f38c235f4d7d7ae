#include "transforms/kind.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "builtin_kinds.h"  // generated from the names of the files in kinds/
#include "core/error.h"

namespace refract {
namespace {

std::vector<KindEntry> builtin_kinds() {
  std::vector<KindEntry> all;
  for (const auto& entry : kBuiltinKinds) all.push_back(*entry());
  return all;
}

// Built-in kinds first, so that a plug-in that takes one of their names fails and not they.
std::vector<KindEntry>& registry() {
  static std::vector<KindEntry> entries = builtin_kinds();
  return entries;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const KindEntry& entry : registry()) all.push_back(entry.name);
  return all;
}

}  // namespace

std::unique_ptr<LinearLayer> Kind::linear(Build, const LinearSpec& spec) const {
  throw std::logic_error("this kind makes no linear layer: " + spec.name);
}

std::unique_ptr<AttentionCore> Kind::attention(Build, const AttentionSpec& spec) const {
  throw std::logic_error("this kind makes no attention: " + spec.name);
}

std::unique_ptr<Projections> Kind::projections(Build, const ProjectionSpec&) const {
  return nullptr;
}

Energy Kind::energy(const ProductShape& product, const EnergyConstants& constants) const {
  return {digital_energy(product.multiplications, constants), 0};
}

std::string Kind::parameters_for_share(int64_t, double) const { return "{}"; }

void register_kind(KindEntry entry) {
  for (const KindEntry& known : registry()) {
    if (known.name == entry.name)
      fail_usage("the kind \"{}\" is registered twice; give one of them another name", entry.name);
  }
  if (entry.name.empty() || entry.name == "none")
    fail_usage("\"{}\" can't be the name of a kind", entry.name);
  registry().push_back(std::move(entry));
}

const std::vector<KindEntry>& registered_kinds() { return registry(); }

const KindEntry& find_kind(std::string_view name) {
  for (const KindEntry& entry : registry()) {
    if (entry.name == name) return entry;
  }
  std::vector<std::string> known = names();
  known.emplace_back("none");
  fail_usage(
      "there is no kind \"{}\"; did you mean \"{}\"? The kinds are {}; a kind from a plug-in needs "
      "--plugin FILE.so",
      name, nearest_name(name, known), fmt::join(known, ", "));
}

std::unique_ptr<Kind> make_kind(const std::string& table_json, const std::string& where) {
  nlohmann::json table = nlohmann::json::parse(table_json);
  if (table.is_string()) table = {{"kind", table}};
  if (!table.is_object() || !table.contains("kind") || !table["kind"].is_string())
    fail_usage("{}: a kind is its name, or a table with kind = \"name\"", where);
  const std::string name = table["kind"].get<std::string>();
  std::unique_ptr<Kind> kind;
  try {
    kind = find_kind(name).make();
  } catch (const Error& error) {
    throw Error(fmt::format("{}: {}", where, error.what()), ExitCode::kUsage);
  }
  kind->name_ = name;
  table.erase("kind");
  const std::string place = fmt::format("{}, kind \"{}\"", where, name);
  Fields fields;
  kind->describe(fields);
  if (fields.all().empty() && !table.empty())
    fail_usage("{}: unknown key '{}'; this kind has no parameters", place, table.begin().key());
  // Not set_all(): a table is the value of one parameter (an inner kind), never a path.
  for (const auto& [key, value] : table.items()) fields.set(key, value, place);
  kind->check(place);
  return kind;
}

void enter(Build build, const LinearSpec& spec, std::string kind, LinearLayer* layer) {
  build.transformed.push_back({spec, std::move(kind), layer});
}

}  // namespace refract
