#include "report/energy/energy_record.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/files.h"
#include "core/untrusted.h"

namespace refract {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kEnergyFile = "energy.json";

std::string type_of(const std::string& module) { return module.substr(module.rfind('.') + 1); }

bool fold(const ModuleEnergy& a, const ModuleEnergy& b) {
  return type_of(a.module) == type_of(b.module) && a.medium == b.medium &&
         a.energy.total() == b.energy.total() && a.digital == b.digital;
}

std::string layers_of(const std::vector<const ModuleEnergy*>& modules) {
  if (modules.front()->layer < 0) return "";
  if (modules.size() == 1) return format_integer(modules.front()->layer);
  const int64_t first = modules.front()->layer, last = modules.back()->layer;
  if (last - first + 1 == static_cast<int64_t>(modules.size()))
    return fmt::format("{}-{}", first, last);
  return fmt::format("{} of {}-{}", modules.size(), first, last);
}

std::string gain(double digital, double energy) {
  return energy > 0 ? format_number(digital / energy, 3) : "-";
}

double final_loss(const RunRecord& run) {
  const Curve& validation = run.curve("validation_loss");
  return validation.steps.empty() ? run.curve("mean_loss").last() : validation.last();
}

}  // namespace

std::string format_joules(double joules) {
  constexpr std::array<std::pair<double, const char*>, 6> kUnits{
      {{1, "J"}, {1e-3, "mJ"}, {1e-6, "uJ"}, {1e-9, "nJ"}, {1e-12, "pJ"}, {1e-15, "fJ"}}};
  if (joules == 0) return "0";
  for (const auto& [unit, name] : kUnits) {
    if (std::abs(joules) >= unit) return format_number(joules / unit, 4) + " " + name;
  }
  return format_number(joules / 1e-15, 3) + " fJ";
}

Table energy_table(const std::vector<ModuleEnergy>& modules) {
  std::vector<std::vector<const ModuleEnergy*>> groups;
  for (const ModuleEnergy& module : modules) {
    const auto known = std::find_if(groups.begin(), groups.end(),
                                    [&](const auto& group) { return fold(*group[0], module); });
    if (known == groups.end()) {
      groups.push_back({&module});
    } else {
      known->push_back(&module);
    }
  }
  Table table({{"module"},
               {"layers"},
               {"medium"},
               {"product", Align::kRight},
               {"beside it", Align::kRight},
               {"digital", Align::kRight},
               {"digital / it", Align::kRight}});
  for (const auto& group : groups) {
    const auto n = static_cast<double>(group.size());
    const ModuleEnergy& one = *group[0];
    table.add_row({type_of(one.module), layers_of(group), one.medium,
                   format_joules(n * one.energy.product), format_joules(n * one.energy.beside),
                   format_joules(n * one.digital), gain(one.digital, one.energy.total())});
  }
  const EnergyTotal total = total_of(modules);
  table.add_rule();
  table.add_row({"a token", "", "", format_joules(total.energy.product),
                 format_joules(total.energy.beside), format_joules(total.digital),
                 gain(total.digital, total.energy.total())});
  return table;
}

json energy_json(const std::vector<ModuleEnergy>& modules, int64_t context) {
  json rows = json::array();
  for (const ModuleEnergy& module : modules) {
    rows.push_back({{"module", module.module},
                    {"layer", module.layer},
                    {"medium", module.medium},
                    {"multiplications", module.multiplications},
                    {"product", module.energy.product},
                    {"beside", module.energy.beside},
                    {"digital", module.digital}});
  }
  const EnergyTotal total = total_of(modules);
  return {{"context", context},
          {"joules_per_token", total.energy.total()},
          {"beside_per_token", total.energy.beside},
          {"digital_joules_per_token", total.digital},
          {"modules", std::move(rows)}};
}

void write_energy(const fs::path& run_folder, const std::vector<ModuleEnergy>& modules,
                  int64_t context) {
  write_file_atomically(run_folder / kEnergyFile, energy_json(modules, context).dump(1) + "\n");
}

std::optional<std::vector<ModuleEnergy>> read_energy(const fs::path& run_folder) {
  const fs::path file = run_folder / kEnergyFile;
  if (!fs::exists(file)) return std::nullopt;
  const std::optional<json> tree = try_parse_json(read_file(file));
  if (!tree) return std::nullopt;
  std::vector<ModuleEnergy> modules;
  try {
    for (const json& row : tree->at("modules")) {
      ModuleEnergy module;
      module.module = row.at("module").get<std::string>();
      module.layer = row.at("layer").get<int64_t>();
      module.medium = row.at("medium").get<std::string>();
      module.multiplications = row.at("multiplications").get<double>();
      module.energy = {row.at("product").get<double>(), row.at("beside").get<double>()};
      module.digital = row.at("digital").get<double>();
      modules.push_back(std::move(module));
    }
  } catch (const json::exception&) {
    return std::nullopt;
  }
  if (modules.empty()) return std::nullopt;
  return modules;
}

std::vector<EnergyPoint> front_of(std::vector<EnergyPoint> points) {
  std::erase_if(points,
                [](const EnergyPoint& p) { return !std::isfinite(p.loss) || !(p.joules > 0); });
  std::stable_sort(points.begin(), points.end(), [](const EnergyPoint& a, const EnergyPoint& b) {
    return std::pair(a.joules, a.loss) < std::pair(b.joules, b.loss);
  });
  std::vector<EnergyPoint> front;
  for (EnergyPoint& point : points) {
    if (front.empty() || point.loss < front.back().loss) front.push_back(std::move(point));
  }
  return front;
}

PlotSpec energy_front(const std::vector<EnergyPoint>& points) {
  PlotSpec plot;
  plot.title = "Loss against energy";
  plot.x_label = "joules per token";
  plot.y_label = "loss (nats per token)";
  plot.log_x = true;
  Series all{.name = "all", .mode = SeriesMode::kMarkers};
  all.named = true;
  for (const EnergyPoint& point : points) {
    all.x.push_back(point.joules);
    all.y.push_back(point.loss);
    all.labels.push_back(point.name);
  }
  Series front{.name = "front", .mode = SeriesMode::kLines};
  for (const EnergyPoint& point : front_of(points)) {
    front.x.push_back(point.joules);
    front.y.push_back(point.loss);
  }
  front.dashed = true;
  plot.series = {std::move(all), std::move(front)};
  return plot;
}

void add_energy(Page& page, const std::vector<RunRecord>& runs) {
  Table table({{"run"},
               {"joules per token", Align::kRight},
               {"beside the medium", Align::kRight},
               {"digital", Align::kRight},
               {"digital / it", Align::kRight},
               {"loss", Align::kRight}});
  std::vector<EnergyPoint> points;
  std::vector<ModuleEnergy> only;
  for (const RunRecord& run : runs) {
    const auto modules = read_energy(run.folder);
    if (!modules) continue;
    const EnergyTotal total = total_of(*modules);
    const double joules = total.energy.total(), loss = final_loss(run);
    points.push_back({run.name, joules, loss});
    table.add_row({run.name, format_joules(joules), format_joules(total.energy.beside),
                   format_joules(total.digital), gain(total.digital, joules),
                   format_fixed(loss, 4)});
    only = *modules;
  }
  if (points.empty()) return;
  page.heading("Energy of inference");
  if (runs.size() == 1) {
    page.table(energy_table(only));
    return;
  }
  page.table(table);
  page.plot(energy_front(points));
}

}  // namespace refract
