#include "runs/progress/reporter.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "core/log.h"
#include "report/run_record.h"
#include "text/utf8.h"

namespace refract {
namespace {

constexpr auto kLineInterval =
    std::chrono::seconds(5);  // between plain lines where there is no terminal

int64_t resume_step(const RunReporter::Options& options) {
  return options.resumed_from.value_or(MetricsLog::kFresh);
}

}  // namespace

RunReporter::RunReporter(const Options& options)
    : options_(options),
      metrics_(options.folder, resume_step(options)),
      events_(options.folder / "tensorboard", resume_step(options)),
      samples_(open_step_log(options.folder / kSamplesFile, "the samples", resume_step(options))) {
  if (!options.silent) {
    progress_ =
        std::make_unique<Progress>("train", options.steps, options.resumed_from.value_or(0));
  }
}

void RunReporter::write(int64_t step, std::vector<Value> values) {
  metrics_.write(step, values);
  events_.write(step, values);
}

void RunReporter::on_step(int64_t step) {
  if (progress_) {
    progress_->update(step, note_);
  } else {
    options_.silent(step);
  }
}

void RunReporter::on_log(const LogPoint& p) {
  const double flops_per_token =
      options_.flops_per_token + p.guided_share * options_.guide_flops_per_token;
  const double utilisation =
      options_.peak_flops > 0 ? p.tokens_per_second * flops_per_token / options_.peak_flops : 0;
  std::vector<Value> values = {{"loss", p.loss},
                               {"mean_loss", p.mean_loss},
                               {"perplexity", std::exp(p.mean_loss)},
                               {"grad_norm", p.grad_norm},
                               {"learning_rate", p.learning_rate},
                               {"step_ms", p.step_ms},
                               {"tokens_per_second", p.tokens_per_second},
                               {"memory_bytes", p.memory_bytes},
                               {"tokens", static_cast<double>(p.tokens)}};
  if (flops_per_token > 0) {
    values.emplace_back("step_flops", flops_per_token * p.tokens_per_second * p.step_ms / 1e3);
  }
  if (options_.peak_flops > 0) values.emplace_back("mfu", utilisation);
  write(p.step, values);
  if (!progress_) return;
  note_ = fmt::format("loss {:.3f}  {} tok/s", p.mean_loss, format_count(p.tokens_per_second));
  const auto now = std::chrono::steady_clock::now();
  if (Progress::on_terminal() || (now - last_line_ < kLineInterval && p.step < options_.steps))
    return;
  last_line_ = now;
  const double left = static_cast<double>(options_.steps - p.step) * p.step_ms / 1e3;
  std::string line = fmt::format("step {}/{}  loss {:.4f}  norm {:.3f}  lr {:.2e}  {} tokens/s",
                                 p.step, options_.steps, p.mean_loss, p.grad_norm, p.learning_rate,
                                 format_count(p.tokens_per_second));
  if (options_.peak_flops > 0) line += fmt::format("  mfu {:.1f}%", 100 * utilisation);
  log_info("{}  {} left", line, format_duration(left));
}

void RunReporter::on_evaluation(int64_t step, const Evaluation& e) {
  write(step, {{"validation_loss", e.loss},
               {"validation_perplexity", e.perplexity()},
               {"validation_accuracy", e.accuracy}});
  if (!progress_) return;
  log_info("step {}: validation loss {:.4f}, perplexity {:.2f}, accuracy {:.1f}% ({} tokens)", step,
           e.loss, e.perplexity(), 100 * e.accuracy, format_count(static_cast<double>(e.tokens)));
}

void RunReporter::on_sample(int64_t step, const std::string& text) {
  const std::string whole = repair_utf8(text);  // a sample may be cut inside a character
  samples_.append(nlohmann::json({{"step", step}, {"text", whole}}).dump() + "\n");
  if (!progress_) return;
  std::string indented = "  | ";
  for (char c : whole) {
    indented += c;
    if (c == '\n') indented += "  | ";
  }
  log_info("step {}: a sample\n{}", step, indented);
}

void RunReporter::on_checkpoint(int64_t step, const std::filesystem::path& path) {
  if (progress_) log_info("step {}: saved {}", step, path.string());
}

// The metrics then say that the run ended so: a value that is not finite stands as null.
void RunReporter::on_bad_step(const StepRecord& record) {
  write(record.step + 1, {{"loss", record.loss}, {"grad_norm", record.grad_norm}});
}

}  // namespace refract
