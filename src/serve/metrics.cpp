#include "serve/metrics.h"

#include <fmt/format.h>

namespace refract {
namespace {

std::string single(const char* name, const char* type, const char* help, int64_t value) {
  return fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, type, value);
}

}  // namespace

void Metrics::Histogram::add(double value) {
  size_t at = 0;
  while (at < kBounds.size() && value > kBounds.at(at)) ++at;
  ++counts.at(at);
  sum += value;
}

std::string Metrics::Histogram::text(const std::string& name, const std::string& help) const {
  std::string out = fmt::format("# HELP {0} {1}\n# TYPE {0} histogram\n", name, help);
  int64_t below = 0;
  for (size_t i = 0; i < counts.size(); ++i) {
    below += counts.at(i);
    const std::string bound = i < kBounds.size() ? fmt::format("{}", kBounds.at(i)) : "+Inf";
    out += fmt::format("{}_bucket{{le=\"{}\"}} {}\n", name, bound, below);
  }
  return out + fmt::format("{0}_sum {1}\n{0}_count {2}\n", name, sum, below);
}

void Metrics::answered(int status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++answers_[status];
}

void Metrics::completed(double seconds) {
  const std::lock_guard<std::mutex> lock(mutex_);
  completed_.add(seconds);
}

void Metrics::first_token(double seconds) {
  const std::lock_guard<std::mutex> lock(mutex_);
  first_token_.add(seconds);
}

void Metrics::abandoned() {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++abandoned_;
}

std::string Metrics::text(const Engine::Load& load) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::string out =
      "# HELP refract_http_answers_total HTTP answers by status\n"
      "# TYPE refract_http_answers_total counter\n";
  for (const auto& [status, count] : answers_)
    out += fmt::format("refract_http_answers_total{{status=\"{}\"}} {}\n", status, count);
  out += single("refract_prompt_tokens_total", "counter", "tokens of prompts that were read",
                load.prompt_tokens);
  out += single("refract_new_tokens_total", "counter", "tokens that were made", load.new_tokens);
  out += single("refract_abandoned_total", "counter", "completions whose client went away",
                abandoned_);
  out += single("refract_slots", "gauge", "sequences that can grow at a time", load.slots);
  out += single("refract_active_sequences", "gauge", "sequences under way", load.active);
  out += single("refract_waiting_sequences", "gauge", "sequences in the queue", load.waiting);
  out += completed_.text("refract_completion_seconds", "time from a request to its whole answer");
  out += first_token_.text("refract_first_token_seconds", "time from a request to its first token");
  return out;
}

}  // namespace refract
