#include "studies/connectivity/connectivity_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "analysis/matching/clusters.h"
#include "report/page/page.h"
#include "report/table.h"
#include "report/terminal_plot.h"

namespace refract {
namespace {

using nlohmann::json;

// What is summed up over seeds and pairs at one spawn step.
struct Quantity {
  const char* name;
  const char* label;
  double (*of)(const PathResult& path, size_t split);
};
constexpr Quantity kQuantities[] = {
    {"barrier", "loss barrier",
     [](const PathResult& p, size_t s) { return p.loss_barrier(s).barrier; }},
    {"barrier_relative", "relative",
     [](const PathResult& p, size_t s) { return p.loss_barrier(s).relative_barrier(); }},
    {"instability", "instability",
     [](const PathResult& p, size_t s) { return p.loss_barrier(s).instability; }},
    {"instability_relative", "relative",
     [](const PathResult& p, size_t s) { return p.loss_barrier(s).relative_instability(); }},
    {"error_barrier", "token error barrier",
     [](const PathResult& p, size_t s) { return p.error_barrier(s).barrier; }},
    {"loss", "loss of the end points",
     [](const PathResult& p, size_t s) { return p.loss_barrier(s).end_point_mean; }},
    {"distance", "distance", [](const PathResult& p, size_t) { return p.geometry.distance; }},
};

const Quantity& quantity(const std::string& name) {
  for (const Quantity& q : kQuantities) {
    if (name == q.name) return q;
  }
  throw std::logic_error("no quantity " + name);
}

MeanAndSpread over_pairs(const ConnectivityResult& result, int64_t spawn, size_t split,
                         const Quantity& quantity) {
  std::vector<double> values;
  for (const SpawnResult& spawned : result.spawned) {
    if (spawned.spawn != spawn) continue;
    for (const PairPath& pair : spawned.pairs) values.push_back(quantity.of(pair.path, split));
  }
  return mean_and_spread(values);
}

const std::vector<PathSplit>& splits_of(const ConnectivityResult& result) {
  return result.spawned.front().pairs.front().path.splits;
}

bool connected(const ConnectivityResult& result, const PairPath& pair) {
  return pair.path.loss_barrier(0).relative_barrier() < result.threshold;
}

bool all_connected(const ConnectivityResult& result, int64_t spawn) {
  for (const SpawnResult& spawned : result.spawned) {
    if (spawned.spawn != spawn) continue;
    for (const PairPath& pair : spawned.pairs) {
      if (!connected(result, pair)) return false;
    }
  }
  return true;
}

// The outcome as a sentence.
std::string verdict(const ConnectivityResult& result) {
  const std::string& split = splits_of(result)[0].name;
  const std::string limit = format_percent(result.threshold);
  const std::string measure = fmt::format(
      "every pair's loss barrier on {} is below {} of the end points' loss", split, limit);
  const std::optional<int64_t> from = result.connected_from();
  if (!from) {
    return fmt::format(
        "Copies that part at step {}, the last that was tried, are not connected: some pair's loss "
        "barrier on {} is not below {} of the end points' loss.",
        format_integer(result.spawns.back()), split, limit);
  }
  if (*from == result.spawns.front() && result.spawns.size() > 1) {
    return fmt::format("Copies are connected from step {} on, the first that was tried: {}.",
                       format_integer(*from), measure);
  }
  if (result.spawns.size() == 1)
    return fmt::format("Copies that part at step {} are connected: {}.", format_integer(*from),
                       measure);
  const auto place = std::ranges::find(result.spawns, *from);
  return fmt::format("Copies are connected from step {} on, and not yet at step {}: {}.",
                     format_integer(*from), format_integer(*std::prev(place)), measure);
}

json summary_json(const ConnectivityResult& result) {
  json rows = json::array();
  for (int64_t spawn : result.spawns) {
    for (size_t split = 0; split < splits_of(result).size(); ++split) {
      json row = {{"spawn", spawn}, {"split", splits_of(result)[split].name}};
      for (const Quantity& q : kQuantities) {
        const MeanAndSpread values = over_pairs(result, spawn, split, q);
        row[q.name] = {{"mean", finite_or_null(values.mean)},
                       {"deviation", finite_or_null(values.deviation)}};
        row["pairs"] = values.count;
      }
      rows.push_back(row);
    }
  }
  return rows;
}

json clusters_json(const ConnectivityResult& result, const SpawnResult& spawned) {
  json clusters = json::array();
  for (const auto& cluster : clusters_of(result.matrix(spawned), result.threshold)) {
    json names = json::array();
    for (int64_t member : cluster) names.push_back(result.members[static_cast<size_t>(member)]);
    clusters.push_back(names);
  }
  return clusters;
}

std::string with_spread(const MeanAndSpread& values, int digits, double scale, const char* unit) {
  std::string text = format_fixed(scale * values.mean, digits) + unit;
  if (values.count > 1) text += " ± " + format_fixed(scale * values.deviation, digits);
  return text;
}

Table summary_table(const ConnectivityResult& result) {
  Table table({{"spawn", Align::kRight},
               {"split"},
               {"pairs", Align::kRight},
               {"loss", Align::kRight},
               {"barrier", Align::kRight},
               {"relative", Align::kRight},
               {"token error barrier", Align::kRight},
               {"distance", Align::kRight}});
  for (int64_t spawn : result.spawns) {
    for (size_t split = 0; split < splits_of(result).size(); ++split) {
      const auto cell = [&](const char* name, int digits, double scale = 1, const char* unit = "") {
        return with_spread(over_pairs(result, spawn, split, quantity(name)), digits, scale, unit);
      };
      const int64_t count = over_pairs(result, spawn, split, quantity("barrier")).count;
      table.add_row({format_integer(spawn), splits_of(result)[split].name, format_integer(count),
                     cell("loss", 4), cell("barrier", 4), cell("barrier_relative", 2, 100, "%"),
                     cell("error_barrier", 4), cell("distance", 3)});
    }
  }
  return table;
}

std::string pair_name(const ConnectivityResult& result, const PairPath& pair) {
  return result.members[pair.a] + " - " + result.members[pair.b];
}

PlotSpec curve(const ConnectivityResult& result, const char* name, const std::string& title,
               const std::string& label) {
  PlotSpec plot{.title = title, .x_label = "spawn step k", .y_label = label};
  for (size_t split = 0; split < splits_of(result).size(); ++split) {
    Series series{.name = splits_of(result)[split].name};
    series.mode = SeriesMode::kLinesMarkers;
    for (int64_t spawn : result.spawns) {
      const MeanAndSpread values = over_pairs(result, spawn, split, quantity(name));
      series.x.push_back(static_cast<double>(spawn));
      series.y.push_back(values.mean);
      series.error.push_back(values.count > 1 ? values.deviation : 0);
    }
    plot.series.push_back(series);
  }
  return plot;
}

// All paths from one spawn step, over seeds and pairs.
PlotSpec paths_plot(const ConnectivityResult& result, int64_t spawn, size_t split) {
  PlotSpec plot{
      .title = fmt::format("Loss on {}, spawned at {}", splits_of(result)[split].name, spawn),
      .x_label = "alpha",
      .y_label = "nats per token"};
  plot.half_width = true;
  for (const SpawnResult& spawned : result.spawned) {
    if (spawned.spawn != spawn) continue;
    for (const PairPath& pair : spawned.pairs) {
      plot.series.push_back(
          {.name = fmt::format("seed {}: {}", spawned.seed, pair_name(result, pair)),
           .x = pair.path.alphas,
           .y = pair.path.splits[split].losses()});
    }
  }
  return plot;
}

void add_matrices(Page& page, const ConnectivityResult& result) {
  page.heading("Barriers between all copies");
  page.paragraph(fmt::format(
      "Loss barrier over the mean loss of the end points, on {}. Copies are in one cluster where a "
      "chain of pairs below {} joins them.",
      splits_of(result)[0].name, format_number(result.threshold)));
  for (const SpawnResult& spawned : result.spawned) {
    MatrixSpec matrix;
    matrix.title = fmt::format("seed {}, spawned at {}: {}", spawned.seed, spawned.spawn,
                               clusters_json(result, spawned).dump());
    matrix.value_label = "relative barrier";
    matrix.rows = matrix.columns = result.members;
    matrix.values = result.matrix(spawned);
    matrix.half_width = true;
    page.matrix(matrix);
  }
}

}  // namespace

std::optional<int64_t> ConnectivityResult::connected_from() const {
  std::optional<int64_t> from;
  for (auto spawn = spawns.rbegin(); spawn != spawns.rend(); ++spawn) {
    if (!all_connected(*this, *spawn)) break;
    from = *spawn;
  }
  return from;
}

std::vector<std::vector<double>> ConnectivityResult::matrix(const SpawnResult& spawned) const {
  std::vector<std::vector<double>> values(members.size(), std::vector<double>(members.size(), 0));
  for (const PairPath& pair : spawned.pairs) {
    values[pair.a][pair.b] = values[pair.b][pair.a] = pair.path.loss_barrier(0).relative_barrier();
  }
  return values;
}

json connectivity_json(const ConnectivityResult& result) {
  json spawned = json::array();
  for (const SpawnResult& one : result.spawned) {
    json pairs = json::array();
    for (const PairPath& pair : one.pairs) {
      json entry = {{"a", result.members[pair.a]},
                    {"b", result.members[pair.b]},
                    {"path", pair.file},
                    {"distance", finite_or_null(pair.path.geometry.distance)},
                    {"cosine", finite_or_null(pair.path.geometry.cosine())},
                    {"connected", connected(result, pair)}};
      for (size_t split = 0; split < pair.path.splits.size(); ++split) {
        entry[pair.path.splits[split].name] = {
            {"loss_barrier", barrier_json(pair.path.loss_barrier(split))},
            {"error_barrier", barrier_json(pair.path.error_barrier(split))}};
      }
      pairs.push_back(entry);
    }
    spawned.push_back({{"seed", one.seed},
                       {"spawn", one.spawn},
                       {"pairs", pairs},
                       {"clusters", clusters_json(result, one)}});
  }
  const std::optional<int64_t> from = result.connected_from();
  return {{"connected_from", from ? json(*from) : json()},
          {"run", result.folder},
          {"pairs", result.pairs},
          {"members", result.members},
          {"seeds", result.seeds},
          {"spawn", result.spawns},
          {"threshold", result.threshold},
          {"spawned", spawned},
          {"summary", summary_json(result)}};
}

std::string connectivity_csv(const ConnectivityResult& result) {
  std::string out = "seed,spawn,a,b,split";
  for (const Quantity& q : kQuantities) out += fmt::format(",{}", q.name);
  out += '\n';
  for (const SpawnResult& spawned : result.spawned) {
    for (const PairPath& pair : spawned.pairs) {
      for (size_t split = 0; split < pair.path.splits.size(); ++split) {
        out += fmt::format("{},{},{},{},{}", spawned.seed, spawned.spawn, result.members[pair.a],
                           result.members[pair.b], pair.path.splits[split].name);
        for (const Quantity& q : kQuantities) out += fmt::format(",{}", q.of(pair.path, split));
        out += '\n';
      }
    }
  }
  return out;
}

std::string connectivity_text(const ConnectivityResult& result) {
  std::string text = summary_table(result).str() + "\n" + verdict(result) + "\n";
  if (result.spawns.size() > 1) {
    std::vector<TerminalSeries> series;
    for (const Series& s : curve(result, "barrier_relative", "", "").series) {
      TerminalSeries one{s.name, series.empty() ? '*' : 'o', s.x, s.y};
      for (double& value : one.y) value *= 100;
      series.push_back(one);
    }
    text += "\n" + terminal_plot(series, "spawn step k", "loss barrier, % of the end points' loss");
  }
  if (result.members.size() > 2) {
    for (const SpawnResult& spawned : result.spawned) {
      text += fmt::format("seed {}, spawned at {}: clusters {}\n", spawned.seed, spawned.spawn,
                          clusters_json(result, spawned).dump());
    }
  }
  return text;
}

void write_connectivity_page(const ConnectivityResult& result) {
  Page page("Connectivity of " + result.folder,
            fmt::format("{} of {} members, {} seed{}", result.pairs, result.members.size(),
                        result.seeds.size(), result.seeds.size() == 1 ? "" : "s"));
  page.paragraph(verdict(result));
  page.table(summary_table(result));
  page.paragraph(
      "Barrier: the most by which the loss on the straight path rises above the line between its "
      "end points; relative to the end points' mean loss. Mean and sample standard deviation over "
      "seeds and pairs.");
  if (result.spawns.size() > 1) {
    PlotSpec barrier = curve(result, "barrier_relative", "Barrier against the spawn step",
                             "loss barrier over the end points' loss");
    barrier.levels.push_back(
        {result.threshold, fmt::format("connected below {}", format_percent(result.threshold))});
    page.plot(barrier);
    PlotSpec error = curve(result, "error_barrier", "Token error barrier", "barrier"),
             distance = curve(result, "distance", "Distance of the end points", "|A - B|");
    error.half_width = distance.half_width = true;
    page.plot(error);
    page.plot(distance);
  }
  if (result.members.size() > 2) add_matrices(page, result);
  page.heading("Paths");
  std::vector<PlotSpec> paths;
  for (int64_t spawn : result.spawns) {
    for (size_t split = 0; split < splits_of(result).size(); ++split)
      paths.push_back(paths_plot(result, spawn, split));
  }
  const std::pair<double, double> range = common_y_range(paths);
  for (PlotSpec& plot : paths) {  // panels are compared
    plot.y_range = range;
    page.plot(plot);
  }
  page.write(std::filesystem::path(result.folder) / "report.html");
}

}  // namespace refract
