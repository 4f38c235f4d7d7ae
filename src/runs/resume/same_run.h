// Whether a run may go on with the settings that it is given.
#pragma once
#include <filesystem>

#include "train/run_config.h"

namespace refract {

// Compares the resolved settings with those in the run's config.toml, by what each decides.
// kNothing may change. kOutcome may change and is said. kFunction may not, nor may what a run has
// used up already: its starting weights, its seeds, and the length of its windows, by which its
// place in the data is counted. Fails (usage) and names every such setting with both values. The
// corpus is not compared here, see check_corpus().
void check_resumed_settings(const std::filesystem::path& run, const RunConfig& now);

}  // namespace refract
