// The tokens that a study of one model looks at, cut into windows.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/slots.h"
#include "runs/loaded_model.h"

namespace refract {

enum class StudySplit { kTraining, kValidation };

struct StudyTokens {
  struct Batch {
    at::Tensor inputs, targets;  // int [windows, length], on the model's device
    int64_t first = 0;           // number of the first window
  };
  std::vector<Batch> batches;
  int64_t count = 0;   // predicted tokens
  int64_t length = 0;  // of a window
  // Of an evaluation's forward pass of a batch. Weights are taken to have changed before the very
  // first call alone.
  ForwardContext context(size_t batch, at::Device device, bool weights_changed = true) const;
};

// The first `tokens` of the corpus `data` (paths as data.path takes them), without one of the
// model's own split, in windows of data.context tokens, at most 1024. Fails (usage) where there is
// no corpus, and for a text that is shorter than one window.
StudyTokens study_tokens(const LoadedModel& loaded, const std::vector<std::string>& data,
                         int64_t tokens, StudySplit split);

}  // namespace refract
