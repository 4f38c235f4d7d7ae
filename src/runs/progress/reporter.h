// Turns what happens in a run into its files and into what a person sees.
#pragma once
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/progress.h"
#include "report/append_file.h"
#include "report/metrics.h"
#include "report/tensorboard.h"
#include "train/trainer.h"

namespace refract {

class RunReporter : public Observer {
 public:
  struct Options {
    std::filesystem::path folder;
    int64_t steps = 0;
    std::optional<int64_t> resumed_from;
    double flops_per_token = 0;        // of training: forward and backward
    double guide_flops_per_token = 0;  // on top of that in steps that compute the guides
    double peak_flops = 0;             // of the device; 0: unknown, no utilisation is reported
    // Where set, it is told of every step and nothing is shown: for runs trained side by side.
    std::function<void(int64_t)> silent;
  };
  explicit RunReporter(const Options& options);

  void on_step(int64_t step) override;
  void on_log(const LogPoint& point) override;
  void on_evaluation(int64_t step, const Evaluation& evaluation) override;
  void on_sample(int64_t step, const std::string& text) override;
  void on_checkpoint(int64_t step, const std::filesystem::path& path) override;
  void on_bad_step(const StepRecord& record) override;
  void finish() {
    if (progress_) progress_->finish();
  }

 private:
  using Value = std::pair<std::string_view, double>;
  void write(int64_t step, std::vector<Value> values);
  Options options_;
  MetricsLog metrics_;
  TensorBoardWriter events_;
  AppendFile samples_;
  std::unique_ptr<Progress> progress_;  // null where silent
  std::string note_;
  std::chrono::steady_clock::time_point last_line_{};
};

}  // namespace refract
