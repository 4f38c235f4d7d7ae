// An instability analysis that trains in milliseconds.
#pragma once
#include <filesystem>

#include "studies/connectivity/instability_runs.h"
#include "support/training.h"

namespace refract {

// Two copies from the start and two from step 3, of runs of 6 steps, in `folder`.
inline InstabilityPlan tiny_plan(const std::filesystem::path& folder) {
  InstabilityPlan plan;
  plan.config = tiny_config("instability");
  plan.config.run.dir = folder.string();
  plan.config.train.steps = 6;
  resolve(plan.config.model, 16, plan.config.data.context);
  plan.connectivity.spawn = {0, 3};
  plan.connectivity.alphas = 3;
  plan.connectivity.engine = "single";
  plan.data = {nullptr, tiny_stream(), tiny_stream(2), "tiny"};
  plan.where = "recipe.toml";
  return plan;
}

}  // namespace refract
