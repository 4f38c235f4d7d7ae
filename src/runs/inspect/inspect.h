// What a recipe or a model comes to, without running it.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "analysis/energy/model_energy.h"
#include "analysis/flops.h"
#include "runs/inspect/memory_plan.h"
#include "runs/run_cost.h"
#include "train/run_config.h"
#include "transforms/model_builder.h"

namespace refract {

struct Inspection {
  RunConfig config;        // resolved
  TransformedModel model;  // not allocated
  MatrixParameters matrices;
  // Per token, at data.context: forward; forward and backward; what the guides add to that.
  Flops forward, training, guides;
  RunCost cost;  // of the run; all 0 where the settings name no steps
  // The memory of each of so many processes.
  int64_t processes = 1;
  MemoryPlan memory;
  // The merged matrices that generate and eval would keep beside the factors on this machine.
  double premerge_bytes = 0;
  std::vector<ModuleEnergy> energy;  // of inference, per token at data.context
};

// Of a recipe (.toml), a run, a Hugging Face folder, or a Hub id in the cache. Fails (usage) where
// the batch can't be divided among the processes. `constants` is a file for energy_constants().
Inspection inspect_source(const std::string& source, const std::vector<std::string>& overrides,
                          int64_t processes = 1, const std::string& constants = "");

}  // namespace refract
