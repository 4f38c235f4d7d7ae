#include <nlohmann/json.hpp>

#include "cli/command_line.h"
#include "core/config.h"
#include "core/error.h"
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

class KindsCommand : public Command {
 public:
  std::string name() const override { return "kinds"; }
  std::string summary() const override {
    return "The kinds of layers that transform rules can name, and their parameters";
  }
  std::string example() const override { return "refract kinds lora"; }
  void declare(CommandLine& line) override {
    line.positional("kind", kind_, "a kind, to see its parameters", false);
    line.flag("--json", json_, "print one JSON object");
  }
  int run() override;

 private:
  void print(const std::vector<nlohmann::json>& kinds) const;
  std::string kind_;
  bool json_ = false;
};

void KindsCommand::print(const std::vector<nlohmann::json>& kinds) const {
  if (kind_.empty()) {
    Table table({{"kind"}, {"stands for"}, {""}});
    for (const auto& kind : kinds)
      table.add_row({kind["kind"], kind["stands_for"], kind["summary"]});
    fmt::print("{}", table.str());
    return;
  }
  const nlohmann::json& kind = kinds.front();
  fmt::print("{}: {}\nstands for {}\n\n", kind_, kind["summary"].get<std::string>(),
             kind["stands_for"].get<std::string>());
  Table table({{"parameter"}, {"takes"}, {"default"}, {""}});
  for (const auto& p : kind["parameters"]) {
    const std::string type = p["type"], limits = p["limits"];
    table.add_row(
        {p["name"], limits.empty() ? type : type + " " + limits, p["default"], p["help"]});
  }
  if (kind["parameters"].empty()) {
    fmt::print("It has no parameters.\n");
  } else {
    fmt::print("{}", table.str());
  }
}

int KindsCommand::run() {
  std::vector<nlohmann::json> kinds;
  if (kind_ == "none") {
    kinds.push_back(none());
  } else if (!kind_.empty()) {
    kinds.push_back(describe_kind(find_kind(kind_)));
  } else {
    for (const KindEntry& entry : registered_kinds()) kinds.push_back(describe_kind(entry));
    kinds.push_back(none());
  }
  if (json_) {
    fmt::print("{}\n", nlohmann::json{{"kinds", kinds}}.dump());
  } else {
    print(kinds);
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_kinds_command() { return std::make_unique<KindsCommand>(); }

}  // namespace refract
