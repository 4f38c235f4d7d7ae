#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/system/command_line.h"
#include "core/toml.h"
#include "runs/inspect/inspect.h"
#include "runs/inspect/inspect_output.h"
#include "train/recipe.h"
#include "train/run_config.h"

namespace refract {
namespace {

using nlohmann::json;

class InspectCommand : public Command {
 public:
  std::string name() const override { return "inspect"; }
  std::string summary() const override {
    return "Shapes, parameters, FLOPs, memory and energy of a recipe or a model, without running "
           "it";
  }
  std::string example() const override { return "refract inspect recipes/lmc/mingpt.toml"; }
  void declare(CommandLine& line) override {
    line.positional("source", source_,
                    "a recipe (.toml), a run, a Hugging Face folder, or a Hub id in the cache");
    line.positional("overrides", overrides_, "key=value settings");
    line.option("-n,--processes", processes_, "memory of each of so many that train it together");
    line.flag("--json", json_, "print one JSON object");
    line.option("--energy", energy_,
                "a TOML file with constants of energy, in place of the program's own");
    line.flag("--toml", toml_, "print the whole recipe, with its bases and overrides, and no more");
  }
  int run() override;

 private:
  int print_recipe() const;
  std::string source_, energy_;
  std::vector<std::string> overrides_;
  int64_t processes_ = 1;
  bool json_ = false, toml_ = false;
};

int InspectCommand::print_recipe() const {
  if (json_) fail_usage("--toml and --json exclude each other");
  if (!source_.ends_with(".toml"))
    fail_usage("'{}' is not a recipe (.toml); --toml prints a recipe", source_);
  const json tree = read_recipe(source_, overrides_);
  make_run_config(tree, source_);  // fails for a wrong setting
  fmt::print("{}", to_toml(tree));
  return 0;
}

int InspectCommand::run() {
  if (toml_) return print_recipe();
  if (processes_ < 1) fail_usage("--processes takes a number from 1 on, not {}", processes_);
  const Inspection found = inspect_source(source_, overrides_, processes_, energy_);
  if (json_) {
    fmt::print("{}\n", inspection_json(found).dump());
  } else {
    fmt::print("{}", inspection_text(found));
  }
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_inspect_command() { return std::make_unique<InspectCommand>(); }

}  // namespace refract
