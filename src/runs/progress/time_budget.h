// How long a run takes: steps out of a time (train.minutes), and a warm-up that a run is too short
// for.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "data/dataset.h"
#include "train/run_config.h"

namespace refract {

// Steps that fit into `minutes` where one takes `step_seconds`: two significant digits, rounded
// down; at least 100, so that a slow machine trains a model too.
int64_t steps_within(double minutes, double step_seconds);

// Sets train.steps where train.minutes decides it (neither train.steps nor train.tokens is set). A
// run that is resumed keeps the number in its folder's settings. Otherwise a model of its own is
// built as the run's will be and trained for some seconds; nothing of it is left, so that the run
// is that of its train.steps, bit for bit. The arguments are those of open_session().
void settle_steps(RunConfig& config, const Dataset& data, const std::filesystem::path& source,
                  at::Device device, const std::string& where, bool resume);

// A warning where the warm-up takes all `steps` (on fresh data, see self_guided.h) or more.
void warn_of_long_warmup(const RunConfig& config, int64_t steps);

}  // namespace refract
