#include "studies/media/study_tokens.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <memory>

#include "core/error.h"
#include "data/dataset.h"
#include "data/tokens.h"

namespace refract {
namespace {

constexpr int64_t kLongestWindow = 1024;  // attention is looked at whole, [T, T] for each head
constexpr int64_t kTokensPerBatch = 2048;

std::shared_ptr<TokenStream> stream_of(const LoadedModel& loaded,
                                       const std::vector<std::string>& data, StudySplit split) {
  DataConfig config = loaded.config.data;
  std::shared_ptr<TokenStream> stream;
  if (data.empty()) {
    const Dataset own = open_dataset(config, loaded.tokenizer);
    stream = split == StudySplit::kTraining ? own.train : own.validation;
  } else {
    config.path = data;
    stream = open_corpus(config, loaded.tokenizer);
  }
  if (!stream || stream->size() < 2)
    fail_usage("'{}' has no text to look at; give one with --data", loaded.folder.string());
  check_tokens(*stream, loaded.config.model.vocab_size, "the corpus");
  return stream;
}

}  // namespace

ForwardContext StudyTokens::context(size_t batch, at::Device device, bool weights_changed) const {
  ForwardContext context;
  context.clock = at::tensor({kEvaluationStep, batches[batch].first}, at::kLong).to(device);
  context.weights_changed = weights_changed;
  return context;
}

StudyTokens study_tokens(const LoadedModel& loaded, const std::vector<std::string>& data,
                         int64_t tokens, StudySplit split) {
  const std::shared_ptr<TokenStream> stream = stream_of(loaded, data, split);
  StudyTokens all;
  all.length = std::min({loaded.config.data.context, kLongestWindow, stream->size() - 1});
  const int64_t windows = std::max<int64_t>(1, std::min(tokens, stream->size() - 1) / all.length);
  const int64_t per_batch = std::max<int64_t>(1, kTokensPerBatch / all.length);
  for (int64_t first = 0; first < windows; first += per_batch) {
    const int64_t count = std::min(per_batch, windows - first), size = all.length + 1;
    at::Tensor host = at::empty({count, size}, at::TensorOptions().dtype(at::kInt));
    auto* values = host.mutable_data_ptr<int32_t>();
    for (int64_t i = 0; i < count; ++i) {
      stream->read((first + i) * all.length, {values + i * size, static_cast<size_t>(size)});
    }
    host = host.to(loaded.model->device());
    all.batches.push_back({host.narrow(1, 0, all.length).contiguous(),
                           host.narrow(1, 1, all.length).contiguous(), first});
  }
  all.count = windows * all.length;
  return all;
}

}  // namespace refract
