#include "report/run/run_head.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "core/progress.h"
#include "core/system/process_info.h"
#include "report/run/run_axes.h"
#include "report/table.h"

namespace refract {
namespace {

std::string date(const RunRecord& run) {
  if (!run.starts.empty()) return utc_minute(run.starts.front().time);
  const Curve& time = run.curve("time");
  return time.values.empty() ? "" : utc_minute(time.values.front());
}

// Starts after the first: "from step 500 at 2026-11-30 07:20 UTC".
std::string resumed(const RunRecord& run) {
  std::string text;
  for (size_t i = 1; i < run.starts.size(); ++i) {
    text += fmt::format("{}from step {} at {}", i > 1 ? "; " : "",
                        format_integer(run.starts[i].from_step), utc_minute(run.starts[i].time));
  }
  return text;
}

std::string parameters(const RunRecord& run) {
  if (run.starts.empty()) return "";
  const StartRecord& start = run.starts.back();
  std::string text = format_integer(start.parameters);
  if (start.trainable_parameters < start.parameters)
    text += fmt::format(", {} of them trained", format_integer(start.trainable_parameters));
  return text;
}

// What was spent so far, and of a run that has not finished also what all of it would take.
std::string flops(const RunRecord& run) {
  const Curve spent = training_flops_by_step(run);
  if (spent.steps.empty()) return "";
  std::string text = format_number(spent.last(), 3);
  if (!run.starts.empty() && run.last_step() < run.starts.back().steps)
    text += fmt::format(" of {}", format_number(run.starts.back().training_flops, 3));
  return text;
}

// The spans from each start to the last line that it wrote.
double wall_seconds(const RunRecord& run) {
  const std::vector<double>& times = run.curve("time").values;
  if (times.empty()) return 0;
  if (run.starts.empty()) return times.back() - times.front();
  double seconds = 0;
  for (size_t i = 0; i < run.starts.size(); ++i) {
    const double begin = run.starts[i].time;
    const bool newest = i + 1 == run.starts.size();
    double end = begin;
    for (const double time : times) {
      if (newest || time < run.starts[i + 1].time) end = std::max(end, time);
    }
    seconds += end - begin;
  }
  return seconds;
}

std::string wall_time(const RunRecord& run) {
  const double seconds = wall_seconds(run);
  if (!(seconds > 0)) return "";
  const Curve steps = training_seconds_by_step(run);
  if (steps.steps.empty()) return format_duration(seconds);
  return fmt::format("{}, {} of it training steps", format_duration(seconds),
                     format_duration(steps.last()));
}

std::string device(const RunRecord& run) {
  if (run.starts.empty()) return "";
  return fmt::format("{}, {}", run.starts.back().device, run.starts.back().precision);
}

void add_facts(Page& page, const RunRecord& run) {
  const std::string version =
      run.starts.empty() ? "" : fmt::format(", refract {}", run.starts.back().version);
  if (const std::string when = date(run); !when.empty()) page.fact("trained", when + version);
  page.fact("resumed", resumed(run));
  if (!run.starts.empty()) page.fact("command", run.starts.front().command);
  page.fact("device", device(run));
  page.fact("parameters", parameters(run));
  page.fact("training FLOPs", flops(run));
  page.fact("wall time", wall_time(run));
}

}  // namespace

void add_head(Page& page, const std::vector<RunRecord>& runs) {
  if (runs.size() == 1) {
    add_facts(page, runs.front());
    return;
  }
  Table table({{"run"},
               {"trained"},
               {"device"},
               {"parameters", Align::kRight},
               {"training FLOPs", Align::kRight},
               {"wall time"},
               {"command"}});
  for (const RunRecord& run : runs) {
    table.add_row({run.name, date(run), device(run), parameters(run), flops(run), wall_time(run),
                   run.starts.empty() ? "" : run.starts.front().command});
  }
  page.begin_fold("How they were made");
  page.table(table);
  page.end_fold();
}

}  // namespace refract
