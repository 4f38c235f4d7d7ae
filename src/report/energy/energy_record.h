// energy.json of a run's folder, and what is shown of a model's energy.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "analysis/energy/model_energy.h"
#include "report/page/page.h"
#include "report/run_record.h"
#include "report/table.h"

namespace refract {

// Modules of one type in one medium that take the same, over all their layers.
Table energy_table(const std::vector<ModuleEnergy>& modules);
// "3.1 uJ" for 3.1e-6.
std::string format_joules(double joules);

nlohmann::json energy_json(const std::vector<ModuleEnergy>& modules, int64_t context);
void write_energy(const std::filesystem::path& run_folder, const std::vector<ModuleEnergy>& modules,
                  int64_t context);
// Nothing where the folder has no such file, or one that is not of its form.
std::optional<std::vector<ModuleEnergy>> read_energy(const std::filesystem::path& run_folder);

// A point of the front: a run or a model in a medium.
struct EnergyPoint {
  std::string name;
  double joules = 0, loss = 0;
};
// Loss against energy, with the points that no other beats in both.
PlotSpec energy_front(const std::vector<EnergyPoint>& points);
// Those of the points, by rising energy.
std::vector<EnergyPoint> front_of(std::vector<EnergyPoint> points);

// A section of a report: of one run its table, of several the front over their final losses.
// Nothing where no run recorded its energy.
void add_energy(Page& page, const std::vector<RunRecord>& runs);

}  // namespace refract
