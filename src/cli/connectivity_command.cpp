#include <cstdio>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/config.h"
#include "core/error.h"
#include "core/log.h"
#include "core/system/command_line.h"
#include "studies/connectivity/connectivity.h"
#include "studies/connectivity/connectivity_config.h"

namespace refract {
namespace {

class ConnectivityCommand : public Command {
 public:
  std::string name() const override { return "connectivity"; }
  std::string summary() const override {
    return "Instability analysis: train copies from several steps on and measure their barriers";
  }
  std::string example() const override {
    return "refract connectivity recipes/lmc/tinygpt.toml train.steps=400 schedule.warmup=40 "
           "'connectivity.spawn=[0,100]' run.dir=runs/lmc";
  }
  void declare(CommandLine& line) override {
    line.positional("recipe", recipe_, "TOML file with the settings of the runs and [connectivity]",
                    false);
    line.positional("overrides", overrides_, "key=value settings that replace the recipe's");
    line.flag("--help-keys", help_keys_, "list the settings of [connectivity]");
    line.flag("--json", json_, "print the outcome as one JSON object");
  }
  int run() override;

 private:
  std::string recipe_;
  std::vector<std::string> overrides_;
  bool help_keys_ = false, json_ = false;
};

std::string help_keys() {
  Fields fields;
  ConnectivityConfig defaults;
  describe(fields, defaults);
  return fields.help_text();
}

int ConnectivityCommand::run() {
  if (help_keys_) {
    std::fputs(help_keys().c_str(), stdout);
    return 0;
  }
  if (recipe_.empty())
    fail_usage("connectivity needs a recipe, e.g. refract connectivity recipes/lmc/tinygpt.toml");
  const std::optional<ConnectivityResult> result = run_connectivity(recipe_, overrides_);
  if (!result) {
    log_info(
        "stopped by a signal; what was trained is saved, and the same command goes on from there");
    return static_cast<int>(ExitCode::kFailed);
  }
  fmt::print("{}", json_ ? connectivity_json(*result).dump() + "\n" : connectivity_text(*result));
  log_info("wrote {}", (std::filesystem::path(result->folder) / "report.html").string());
  return 0;
}

}  // namespace

std::unique_ptr<Command> make_connectivity_command() {
  return std::make_unique<ConnectivityCommand>();
}

}  // namespace refract
