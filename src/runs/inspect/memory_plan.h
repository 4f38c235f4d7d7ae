// The memory that training a recipe takes on its device.
#pragma once
#include <cstdint>
#include <optional>

#include "train/run_config.h"

namespace refract {

// What a training call keeps and uses beside weights and gradients, in bytes.
struct CallMemory {
  double kept = 0;  // from the forward pass to the backward pass
  double most = 0;  // at once
};

// Of one process, in bytes, as the device's allocator counts them.
struct MemoryPlan {
  double weights = 0;    // in the compute type, and of the trained ones their fp32 masters
  double gradients = 0;  // of the trained ones
  double moments = 0;
  double sums = 0;      // fp32 sums of gradients that wait for other micro-batches or groups
  double exchange = 0;  // buffers through which processes exchange gradients
  double state() const { return weights + gradients + moments + sums + exchange; }

  // At the peak of a step; nothing where a kind's layers can't be followed without numbers.
  std::optional<CallMemory> call;
  double libraries = 0;  // workspaces of the libraries that multiply matrices
  std::optional<double> peak() const;
};

// Of each of so many processes at the beginning of a run. A teacher (distill.weight) is not
// counted. `config` is resolved. Fails (usage) where the batch can't be divided among the
// processes.
MemoryPlan plan_memory(const RunConfig& config, int64_t processes);

// Runs a training call of the run's model on micro_batch sequences on the meta device, where
// tensors have shapes and no numbers, and follows what autograd keeps. So it is the layers' own
// code that is counted, under any rules and train.recompute.
std::optional<CallMemory> measure_call(const RunConfig& config, int64_t micro_batch);

}  // namespace refract
