// An optimizer step of a process that keeps the moments of a slice alone (train.shard).
#pragma once
#include <functional>

#include "train/update/weight_update.h"

namespace refract {

// Moves the weights of `in.range`, this process's slice of `part`, whose gradients it has. Of
// muon's matrices, which the slices cut, it moves all that lie in `part`: each process adds to the
// momentum of its slice, `gather` brings the others' steps into in.grads, and each makes all of
// them orthogonal, to the same bits. So muon's momentum is divided, and its work is not.
// gather(flat) gets all slices of a flat part, of which this process's own is there.
void update_slice(ParameterArena& arena, const RunConfig::Optimizer& optimizer,
                  const UpdateInputs& in, const Range& part,
                  const std::function<void(const at::Tensor& flat)>& gather);

}  // namespace refract
