// Which of a step's sequences a process computes, and in which pieces.
#pragma once
#include <cstdint>

#include "train/run_config.h"

namespace refract {

// A step's sequences are numbered from 0 to train.batch - 1. With train.reduction_groups they form
// so many equal groups, of which a process has some that follow each other; without, a process's
// part is one group.
struct BatchShare {
  int64_t first = 0;          // of the step's sequences
  int64_t groups = 1;         // of this process
  int64_t micro_batch = 0;    // sequences of a forward pass
  int64_t per_group = 1;      // micro-batches
  bool fixed_groups = false;  // with train.reduction_groups
  int64_t micro_batches() const { return groups * per_group; }
  int64_t sequences() const { return micro_batches() * micro_batch; }
};

// The share of process `rank` of `size`. Fails (usage) where the batch or the groups can't be
// divided so.
BatchShare share_of_batch(const RunConfig& config, int64_t rank, int64_t size);

// Checks train.reduction_groups, train.batch and train.micro_batch, whatever the number of
// processes.
void check_reduction_groups(const RunConfig& config);

}  // namespace refract
