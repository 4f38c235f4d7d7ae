// The constants that energy is counted with: energy.toml of this folder, which is part of the
// program, and what a user's file replaces of it.
#pragma once
#include <filesystem>

#include "transforms/energy.h"

namespace refract {

// An empty path: those of energy.toml as they are. Fails (usage) for a file that is not of its form
// or names a constant that does not exist.
EnergyConstants energy_constants(const std::filesystem::path& file = {});

}  // namespace refract
