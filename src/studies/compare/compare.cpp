#include "studies/compare/compare.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <thread>

#include "core/error.h"
#include "core/files.h"
#include "core/log.h"
#include "core/system/child_process.h"
#include "core/system/folder_lock.h"
#include "studies/compare/compare_output.h"
#include "train/signals.h"
#include "transforms/plugin.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

constexpr std::chrono::milliseconds kRowPause{50};

std::vector<CompareRow> wanted_rows(const CompareStudy& study, const ComparePlan& plan) {
  if (study.only.empty()) return plan.rows;
  for (const CompareRow& row : plan.rows) {
    if (row.name == study.only) return {row};
  }
  fail_usage("{} has no row '{}'", study.media, study.only);
}

bool is_complete(const CompareRequest& request, const CompareRow& row) {
  const std::optional<KeptRow> kept = kept_row(request, row);
  return kept && kept->complete;
}

std::vector<RowResult> known_rows(const CompareRequest& request, const ComparePlan& plan) {
  std::vector<RowResult> known;
  for (const CompareRow& row : plan.rows) {
    if (std::optional<KeptRow> kept = kept_row(request, row)) known.push_back(kept->result);
  }
  return known;
}

std::string last_words(const fs::path& file) {
  std::string text = fs::exists(file) ? read_file(file) : "";
  text.erase(text.find_last_not_of(" \n") + 1);
  return text.substr(text.rfind('\n') + 1);
}

// Rows in processes of their own.
class RowProcesses {
 public:
  RowProcesses(const CompareStudy& study, std::vector<CompareRow> rows)
      : study_(study), waiting_(std::move(rows)) {
    std::reverse(waiting_.begin(), waiting_.end());  // taken from the back
  }

  template <class Changed>
  std::vector<std::string> run(const Changed& changed) {
    while (!children_.empty() || (!waiting_.empty() && !stopping_)) {
      if (!stopping_ && StopSignals::received() != 0) {
        stopping_ = true;
        for (const auto& [pid, child] : children_) ::kill(pid, SIGTERM);
      }
      while (!stopping_ && !waiting_.empty() &&
             static_cast<int64_t>(children_.size()) < study_.jobs) {
        start();
      }
      std::this_thread::sleep_for(kRowPause);
      if (reap()) changed();
    }
    return failures_;
  }

 private:
  struct Child {
    CompareRow row;
    int64_t slot = 0;
    fs::path errors;
  };

  void start() {
    Child child{waiting_.back(), free_slot(), {}};
    waiting_.pop_back();
    const fs::path logs = study_.request.out / "logs";
    fs::create_directories(logs);
    child.errors = logs / (child.row.folder + ".txt");
    ChildProcess process;
    process.arguments = compare_arguments(study_, child.row.name);
    process.environment = device_environment(child.slot);
    process.output = logs / (child.row.folder + ".json");
    process.errors = child.errors;
    log_info("started: {}", child.row.name);
    children_.emplace(start_program(process), std::move(child));
  }

  bool reap() {
    bool any = false;
    for (auto it = children_.begin(); it != children_.end();) {
      int status = 0;
      if (::waitpid(it->first, &status, WNOHANG) != it->first) {
        ++it;
        continue;
      }
      any = true;
      const Child& child = it->second;
      if (is_complete(study_.request, child.row)) {
        log_info("done: {}", child.row.name);
      } else if (!stopping_) {
        failures_.push_back(child.row.name + ": " + last_words(child.errors));
      }
      it = children_.erase(it);
    }
    return any;
  }

  int64_t free_slot() const {
    std::set<int64_t> taken;
    for (const auto& [pid, child] : children_) taken.insert(child.slot);
    int64_t slot = 0;
    while (taken.contains(slot)) ++slot;
    return slot;
  }

  const CompareStudy& study_;
  std::vector<CompareRow> waiting_;
  std::map<pid_t, Child> children_;
  std::vector<std::string> failures_;
  bool stopping_ = false;
};

// One after the other in this process. An error of one is kept for the end.
template <class Changed>
std::vector<std::string> in_turn(const CompareStudy& study, const std::vector<CompareRow>& rows,
                                 const Changed& changed) {
  std::vector<std::string> failures;
  for (const CompareRow& row : rows) {
    if (StopSignals::received() != 0) break;
    try {
      if (!measure_row(study.request, row)) break;
    } catch (const Error& error) {
      if (rows.size() == 1) throw;
      log_warning("{}: {}", row.name, error.what());
      failures.push_back(row.name + ": " + error.what());
    }
    changed();
  }
  return failures;
}

}  // namespace

std::vector<std::string> compare_arguments(const CompareStudy& study, const std::string& row) {
  const CompareRequest& request = study.request;
  std::vector<std::string> out = {"compare", request.model};
  out.insert(out.end(), request.overrides.begin(), request.overrides.end());
  const auto names_threads = [](const std::string& text) {
    return text.starts_with("train.threads=");
  };
  if (study.jobs > 1 &&
      std::none_of(request.overrides.begin(), request.overrides.end(), names_threads)) {
    const int64_t cores = std::max(1U, std::thread::hardware_concurrency());
    out.push_back(fmt::format("train.threads={}", std::max<int64_t>(1, cores / study.jobs)));
  }
  out.insert(out.end(), {"--media", study.media, "--out", request.out.string(), "--row", row,
                         "--tokens", std::to_string(request.tokens), "--json"});
  for (const std::string& text : request.texts) out.insert(out.end(), {"--data", text});
  if (!request.energy.empty()) out.insert(out.end(), {"--energy", request.energy});
  for (const std::string& plugin : loaded_plugins()) out.insert(out.end(), {"--plugin", plugin});
  return out;
}

CompareResult compare(const CompareStudy& study) {
  if (study.jobs < 1) fail_usage("--jobs {} must be at least 1", study.jobs);
  if (study.request.tokens < 0) fail_usage("--tokens {} can't be negative", study.request.tokens);
  if (study.request.texts.empty())
    fail_usage("there is no text to measure on; give one with --data");
  const ComparePlan plan = read_compare_plan(study.media);
  const std::vector<CompareRow> wanted = wanted_rows(study, plan);
  const CompareRequest& request = study.request;
  prepare_compare_folder(request.out);
  std::optional<FolderLock> lock;  // a single row locks its own folder alone
  if (study.only.empty()) lock.emplace(request.out, "is in use by another comparison");
  const StopSignals signals;
  std::vector<CompareRow> missing;
  for (const CompareRow& row : wanted) {
    if (!is_complete(request, row)) missing.push_back(row);
  }
  if (missing.size() < wanted.size())
    log_info("{} of {} rows are known already", wanted.size() - missing.size(), wanted.size());
  CompareResult result;
  const auto changed = [&] {
    result.rows = known_rows(request, plan);
    write_comparison(result, request.out);
  };
  result.failures = study.jobs > 1 && missing.size() > 1 ? RowProcesses(study, missing).run(changed)
                                                         : in_turn(study, missing, changed);
  result.complete = std::all_of(wanted.begin(), wanted.end(),
                                [&](const CompareRow& row) { return is_complete(request, row); });
  changed();
  return result;
}

}  // namespace refract
