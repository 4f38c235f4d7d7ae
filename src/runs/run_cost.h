// What a run costs, before it is trained.
#pragma once
#include <cstdint>
#include <string>

#include "analysis/flops.h"
#include "model/decoder.h"
#include "train/run_config.h"

namespace refract {

struct RunCost {
  TrainingRun run;
  Flops flops;
};

// Of a run of `fresh_steps` steps on fresh data, guides, repeats and a teacher included; all 0 for
// 0 steps. The model need not be allocated.
RunCost cost_of_run(const RunConfig& config, const Decoder& model, int64_t fresh_steps);

// "12 steps of 4 x 8 tokens: 384 tokens, 1.2e6 FLOPs (attention 20%, feed-forward 50%, head 30%)"
std::string describe(const RunCost& cost, const RunConfig& config);

}  // namespace refract
