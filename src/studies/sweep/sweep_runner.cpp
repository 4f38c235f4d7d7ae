#include "studies/sweep/sweep_runner.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <set>
#include <thread>
#include <utility>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/system/child_process.h"
#include "core/toml.h"
#include "core/untrusted.h"
#include "report/divergence.h"
#include "report/run_record.h"
#include "train/signals.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr milliseconds kPause{50};
constexpr milliseconds kLook{500};  // between two looks at a run's metrics
constexpr std::chrono::seconds kPatience{60};
constexpr const char* kOutcome = "outcome.json";

// The program's last words, without their "refract: ".
std::string last_line(const fs::path& path) {
  std::string text = fs::exists(path) ? read_file(path) : "";
  text.erase(text.find_last_not_of(" \n") + 1);
  text = text.substr(text.rfind('\n') + 1);
  return text.starts_with("refract: ") ? text.substr(9) : text;
}

// Whether the run said that a signal ended it after it had saved.
bool was_stopped(const fs::path& folder) {
  if (!fs::exists(folder / kOutcome)) return false;
  const auto outcome = try_parse_json(read_file(folder / kOutcome)).value_or(nlohmann::json());
  const auto finished = outcome.find("finished");
  return finished != outcome.end() && *finished == nlohmann::json(false);
}

double seconds_since(Clock::time_point time) {
  return std::chrono::duration<double>(Clock::now() - time).count();
}

// How much of its steps a run has done, by its metrics and settings; 0 where they don't say.
double share_done(const fs::path& folder, const std::map<std::string, Curve>& metrics) {
  const auto loss = metrics.find("loss");
  if (loss == metrics.end() || loss->second.steps.empty()) return 0;
  const fs::path settings = folder / "config.toml";
  if (!fs::exists(settings)) return 0;
  const auto steps =
      read_toml(settings).value(nlohmann::json::json_pointer("/train/steps"), nlohmann::json(0));
  const double all = steps.is_number() ? steps.get<double>() : 0;
  return all > 0 ? std::min(1.0, loss->second.steps.back() / all) : 0;
}
double share_done(const fs::path& folder) { return share_done(folder, read_metrics(folder)); }

// "validation loss 1.2345", or the training loss where nothing was validated.
std::string final_loss(const fs::path& folder) {
  const std::map<std::string, Curve> metrics = read_metrics(folder);
  for (const auto& [metric, name] :
       {std::pair("validation_loss", "validation loss"), std::pair("mean_loss", "training loss")}) {
    const auto found = metrics.find(metric);
    if (found != metrics.end() && std::isfinite(found->second.last()))
      return fmt::format("{} {:.4f}", name, found->second.last());
  }
  return "";
}

}  // namespace

SweepLock::SweepLock(const fs::path& folder) {
  const fs::path path = folder / ".lock";
  // Not O_CLOEXEC: the runs inherit it.
  fd_ = ::open(path.c_str(), O_RDWR | O_CREAT, 0644);
  if (fd_ < 0) fail("can't write '{}': {}", path.string(), std::strerror(errno));
  const Clock::time_point give_up = Clock::now() + kPatience;
  bool said = false;
  while (::flock(fd_, LOCK_EX | LOCK_NB) != 0) {
    if (!said) log_info("'{}' is in use by another sweep or its runs; waiting", folder.string());
    said = true;
    if (Clock::now() > give_up || StopSignals::received() != 0) {
      ::close(fd_);
      fail("'{}' is in use by another sweep or its runs; wait for them, or choose another --out",
           folder.string());
    }
    std::this_thread::sleep_for(kPause);
  }
}

SweepLock::~SweepLock() { ::close(fd_); }

SweepRunner::SweepRunner(Options options, SweepRecord& sweep)
    : options_(std::move(options)),
      sweep_(sweep),
      progress_("sweep", static_cast<int64_t>(sweep.runs.size())) {}

bool SweepRunner::run(const std::vector<size_t>& wanted) {
  std::vector<size_t> waiting;
  wanted_ = wanted;
  begun_ = Clock::now();
  std::ranges::copy_if(wanted, std::back_inserter(waiting),
                       [this](size_t run) { return !has_ended(sweep_.runs[run].state); });
  ended_ = static_cast<int64_t>(sweep_.runs.size() - waiting.size());
  std::reverse(waiting.begin(), waiting.end());  // taken from the back
  while (!children_.empty() || (!waiting.empty() && !stopping_)) {
    if (!stopping_ && StopSignals::received() != 0) {
      stopping_ = true;
      log_info("stopping; {} run(s) save and end", children_.size());
      for (const auto& [pid, child] : children_) ::kill(pid, SIGTERM);
    }
    while (!stopping_ && !waiting.empty() &&
           static_cast<int64_t>(children_.size()) < options_.jobs) {
      start_next(waiting);
    }
    waiting_ = waiting.size();
    std::this_thread::sleep_for(kPause);
    reap();
    watch();
  }
  progress_.finish();
  return !stopping_;
}

int64_t SweepRunner::free_slot() const {
  std::set<int64_t> taken;
  for (const auto& [pid, child] : children_) taken.insert(child.slot);
  int64_t slot = 0;
  while (taken.contains(slot)) ++slot;
  return slot;
}

void SweepRunner::start_next(std::vector<size_t>& waiting) {
  Child child{.run = waiting.back(), .slot = free_slot()};
  waiting.pop_back();
  const SweepRun& run = sweep_.runs[child.run];
  const fs::path folder = options_.folder / run.name;
  fs::create_directories(folder);
  set_state(child.run, SweepState::kRunning);
  child.started = Clock::now();
  child.share = child.first_share = share_done(folder);
  log_info("started {}: {}", place_text(child.run), run.name);
  ChildProcess process;
  process.arguments = options_.arguments(run);
  process.environment = device_environment(child.slot);
  process.output = folder / kOutcome;
  process.errors = folder / "output.txt";
  children_.emplace(start_program(process), child);
}

void SweepRunner::reap() {
  for (auto it = children_.begin(); it != children_.end();) {
    int status = 0;
    if (::waitpid(it->first, &status, WNOHANG) != it->first) {
      ++it;
      continue;
    }
    const Child child = it->second;
    it = children_.erase(it);
    end(child, status);
  }
}

// What a run came to. Its own metrics say whether it diverged, however it ended.
void SweepRunner::end(const Child& child, int status) {
  const fs::path folder = options_.folder / sweep_.runs[child.run].name;
  const std::string reason =
      child.diverged.empty() ? divergence(read_metrics(folder), options_.margin) : child.diverged;
  if (!reason.empty()) {
    set_state(child.run, SweepState::kDiverged, reason);
  } else if (WIFEXITED(status) && WEXITSTATUS(status) == 0) {
    set_state(child.run, SweepState::kFinished);
  } else if (was_stopped(folder) || stopping_) {
    set_state(child.run, SweepState::kStopped);
  } else if (WIFSIGNALED(status)) {
    set_state(
        child.run, SweepState::kFailed,
        fmt::format("killed by signal {} ({})", WTERMSIG(status), strsignal(WTERMSIG(status))));
  } else {
    set_state(child.run, SweepState::kFailed, last_line(folder / "output.txt"));
  }
  const SweepRun& run = sweep_.runs[child.run];
  ended_ += 1;
  worked_ += 1 - child.first_share;
  std::string line =
      fmt::format("{} {}: {}", state_name(run.state), place_text(child.run), run.name);
  if (const std::string loss = final_loss(folder); !loss.empty()) line += ", " + loss;
  if (!run.reason.empty()) line += ": " + run.reason;
  line += fmt::format(" ({})", format_duration(seconds_since(child.started)));
  if (const std::string left = time_left(); !left.empty()) line += fmt::format("; {} left", left);
  log_info("{}", line);
  options_.on_change();
}

// Ends runs that have diverged.
void SweepRunner::watch() {
  for (auto& [pid, child] : children_) {
    const Clock::time_point now = Clock::now();
    if (now < child.next_look || !child.diverged.empty()) continue;
    look_at(child);
    if (!child.diverged.empty()) ::kill(pid, SIGTERM);
    // A long run's file takes a while to read: at most a twentieth of the time goes into it.
    const Clock::time_point done = Clock::now();
    child.next_look = done + std::max<Clock::duration>(kLook, 20 * (done - now));
  }
  show();
}

void SweepRunner::set_state(size_t run, SweepState state, const std::string& reason) {
  sweep_.runs[run].state = state;
  sweep_.runs[run].reason = reason;
  write_sweep(options_.folder, sweep_);
}

void SweepRunner::look_at(Child& child) {
  const fs::path folder = options_.folder / sweep_.runs[child.run].name;
  const std::map<std::string, Curve> metrics = read_metrics(folder);
  child.diverged = divergence(metrics, options_.margin);
  child.share = share_done(folder, metrics);
}

std::string SweepRunner::place_text(size_t run) const {
  const auto place = std::ranges::find(wanted_, run) - wanted_.begin();
  return fmt::format("{} of {}", place + 1, wanted_.size());
}

// From the work of this call so far, a run counting as one: runs side by side, and a run that
// another call began, come out right.
std::string SweepRunner::time_left() const {
  double worked = worked_, left = static_cast<double>(waiting_);
  for (const auto& [pid, child] : children_) {
    worked += child.share - child.first_share;
    left += 1 - child.share;
  }
  if (worked <= 0 || left <= 0) return "";
  return format_duration(seconds_since(begun_) * left / worked);
}

void SweepRunner::show() {
  const std::string left = time_left();
  std::string note = left.empty() ? "" : left + " left  ";
  for (const auto& [pid, child] : children_)
    note += fmt::format("{} {:.0f}%  ", sweep_.runs[child.run].name, 100 * child.share);
  progress_.update(ended_, note);
}

}  // namespace refract
