#include "analysis/energy/energy_constants.h"

#include <nlohmann/json.hpp>

#include "core/config.h"
#include "core/toml.h"
#include "energy_toml.h"  // generated from energy.toml

namespace refract {

EnergyConstants energy_constants(const std::filesystem::path& file) {
  EnergyConstants constants;
  Fields fields;
  describe(fields, constants);
  fields.set_all(parse_toml(kEnergyToml, "energy.toml"), "energy.toml");
  if (!file.empty()) fields.set_all(read_toml(file), file.string());
  return constants;
}

}  // namespace refract
