#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/system/command_line.h"
#include "runs/inspect/kind_list.h"

namespace refract {
namespace {

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
  std::string kind_;
  bool json_ = false;
};

int KindsCommand::run() {
  const std::vector<nlohmann::json> kinds = list_kinds(kind_);
  if (json_) {
    fmt::print("{}\n", nlohmann::json{{"kinds", kinds}}.dump());
  } else {
    fmt::print("{}", kind_.empty() ? kinds_text(kinds) : kind_text(kinds.front()));
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_kinds_command() { return std::make_unique<KindsCommand>(); }

}  // namespace refract
