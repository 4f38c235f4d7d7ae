#include "runs/inspect/kind_list.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/config.h"
#include "report/table.h"
#include "transforms/kind.h"

namespace refract {
namespace {

std::string stands_for(const Kind& kind) {
  if (!kind.transforms_attention()) return "linear layers";
  return kind.transforms_linear() ? "linear layers, attention" : "attention";
}

nlohmann::json describe_kind(const KindEntry& entry) {
  const auto kind = entry.make();
  Fields fields;
  kind->describe(fields);
  nlohmann::json parameters = nlohmann::json::array();
  for (const Field& field : fields.all()) {
    parameters.push_back({{"name", field.key},
                          {"type", field.type},
                          {"limits", field.limits},
                          {"default", field.default_value},
                          {"help", field.help}});
  }
  return {{"kind", entry.name},
          {"summary", entry.summary},
          {"stands_for", stands_for(*kind)},
          {"parameters", parameters}};
}

nlohmann::json none() {
  return {{"kind", "none"},
          {"summary", "leaves a layer alone"},
          {"stands_for", "linear layers, attention"},
          {"parameters", nlohmann::json::array()}};
}

}  // namespace

std::vector<nlohmann::json> list_kinds(const std::string& name) {
  if (name == "none") return {none()};
  if (!name.empty()) return {describe_kind(find_kind(name))};
  std::vector<nlohmann::json> kinds;
  for (const KindEntry& entry : registered_kinds()) kinds.push_back(describe_kind(entry));
  kinds.push_back(none());
  return kinds;
}

std::string kinds_text(const std::vector<nlohmann::json>& kinds) {
  Table table({{"kind"}, {"stands for"}, {""}});
  for (const auto& kind : kinds) table.add_row({kind["kind"], kind["stands_for"], kind["summary"]});
  return table.str();
}

std::string kind_text(const nlohmann::json& kind) {
  const auto text = [&](const char* key) { return kind[key].get<std::string>(); };
  const std::string head =
      fmt::format("{}: {}\nstands for {}\n\n", text("kind"), text("summary"), text("stands_for"));
  if (kind["parameters"].empty()) return head + "It has no parameters.\n";
  Table table({{"parameter"}, {"takes"}, {"default"}, {""}});
  for (const auto& p : kind["parameters"]) {
    const std::string type = p["type"], limits = p["limits"];
    table.add_row(
        {p["name"], limits.empty() ? type : type + " " + limits, p["default"], p["help"]});
  }
  return head + table.str();
}

}  // namespace refract
