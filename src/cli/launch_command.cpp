#include "core/error.h"
#include "core/system/child_process.h"
#include "core/system/command_line.h"
#include "distributed/launch.h"

namespace refract {
namespace {

class LaunchCommand : public Command {
 public:
  std::string name() const override { return "launch"; }
  std::string summary() const override {
    return "Start a training run as several processes on this machine";
  }
  std::string example() const override {
    return "refract launch -n 2 train recipes/demo.toml train.steps=100 run.dir=runs/two";
  }
  void declare(CommandLine& line) override {
    line.option("-n,--processes", count_, "how many; 0: one for each GPU");
    line.rest(arguments_, "train, with its own arguments");
  }
  bool uses_models() const override { return false; }
  int run() override;

 private:
  int64_t count_ = 0;
  std::vector<std::string> arguments_;
};

int LaunchCommand::run() {
  if (arguments_.empty() || arguments_.front() != "train") {
    fail_usage("launch starts training runs: refract launch -n 2 train RECIPE ...{}",
               arguments_.empty() ? "" : "; '" + arguments_.front() + "' runs in one process");
  }
  const auto gpus = static_cast<int64_t>(visible_devices().size());
  if (count_ == 0 && gpus == 0)
    fail_usage("this machine shows no GPU; say how many processes to start, e.g. -n 2");
  const int64_t count = count_ == 0 ? gpus : count_;
  if (count < 1 || count > 1024) fail_usage("-n takes a number from 1 to 1024, not {}", count);
  return launch_processes(count, arguments_);
}

}  // namespace

std::unique_ptr<Command> make_launch_command() { return std::make_unique<LaunchCommand>(); }

}  // namespace refract
