#include "train/evaluate.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <mutex>
#include <vector>

#include "core/error.h"
#include "distributed/world.h"

namespace refract {
namespace {

constexpr int64_t kTokensPerBatch = 16384;  // enough to fill a GPU, little enough for a laptop
constexpr int64_t kTokensPerCore = 1024;    // activations that stay in a core's own cache

struct Totals {
  double loss = 0;
  double correct = 0;  // a whole number
};

// Windows of `length` + 1 tokens from `begin` on; `first` is the number of the first of them in the
// evaluation.
struct Batch {
  int64_t first = 0, begin = 0, windows = 0, length = 0;
};

// fresh: of a process's batches the first.
Decoder::Loss batch_loss(Decoder& model, const TokenStream& stream, const Batch& at, bool fresh) {
  const int64_t size = at.length + 1;
  at::Tensor host = at::empty({at.windows, size}, at::TensorOptions().dtype(at::kInt));
  int32_t* data = host.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < at.windows; ++i)
    stream.read(at.begin + i * at.length, {data + i * size, static_cast<size_t>(size)});
  const at::Tensor batch = host.to(model.device());
  ForwardContext context;
  context.clock = at::tensor({kEvaluationStep, at.first}, at::kLong).to(model.device());
  context.weights_changed = fresh;
  return model.loss(context, batch.narrow(1, 0, at.length).contiguous(),
                    batch.narrow(1, 1, at.length).contiguous());
}

// Adds up what is predicted, for whoever wants to know.
class Meter {
 public:
  Meter(const std::vector<Batch>& batches, const EvaluationProgress& progress)
      : progress_(progress) {
    for (const Batch& batch : batches) all_ += batch.windows * batch.length;
  }
  void add(const Batch& batch) {
    if (!progress_) return;
    const std::lock_guard<std::mutex> lock(mutex_);
    done_ += batch.windows * batch.length;
    progress_(done_, all_);
  }

 private:
  const EvaluationProgress& progress_;
  std::mutex mutex_;
  int64_t done_ = 0, all_ = 0;
};

// Both fill parts [batches, 2]: the summed loss of each batch and its right guesses.

// One batch after the other, each with all the device has; nothing is read back in between.
void in_turn(Decoder& model, const TokenStream& stream, const std::vector<Batch>& batches,
             const at::Tensor& parts, Meter& meter) {
  for (size_t i = 0; i < batches.size(); ++i) {
    const Decoder::Loss part = batch_loss(model, stream, batches[i], i == 0);
    const at::Tensor row = parts.select(0, static_cast<int64_t>(i));
    row.select(0, 0).copy_(part.sum);
    row.select(0, 1).copy_(part.correct);
    meter.add(batches[i]);
  }
}

// Every core with small batches of its own, whose operations then run on one thread each.
void side_by_side(Decoder& model, const TokenStream& stream, const std::vector<Batch>& batches,
                  const at::Tensor& parts, Meter& meter) {
  auto* out = parts.mutable_data_ptr<double>();
  const auto run = [&](int64_t begin, int64_t end) {
    const at::NoGradGuard no_grad;
    for (int64_t i = begin; i < end; ++i) {
      const Decoder::Loss part = batch_loss(model, stream, batches[i], i == 0);
      out[2 * i] = part.sum.item<double>();
      out[2 * i + 1] = static_cast<double>(part.correct.item<int64_t>());
      meter.add(batches[i]);
    }
  };
  const auto count = static_cast<int64_t>(batches.size());
  run(0, std::min<int64_t>(1, count));  // alone: layers look up their weights in the first pass
  at::parallel_for(1, count, 1, run);
}

// Batch i is process i % W's. The sum is over batches in their order, so it depends neither on the
// number of cores nor on that of processes.
Totals total_of(Decoder& model, const TokenStream& stream, const std::vector<Batch>& batches,
                bool spread, Meter& meter, World& world) {
  std::vector<Batch> own;
  for (size_t i = static_cast<size_t>(world.rank()); i < batches.size();
       i += static_cast<size_t>(world.size())) {
    own.push_back(batches[i]);
  }
  const auto count = static_cast<int64_t>(batches.size());
  const int64_t most = (count + world.size() - 1) / world.size();
  const auto options = at::TensorOptions().device(model.device()).dtype(at::kDouble);
  const at::Tensor parts = at::zeros({most, 2}, options);
  spread ? side_by_side(model, stream, own, parts, meter)
         : in_turn(model, stream, own, parts, meter);
  const at::Tensor all = at::empty({world.size(), most, 2}, options);
  world.all_gather(parts, all);
  const at::Tensor host = all.cpu();
  const auto* values = host.const_data_ptr<double>();
  Totals totals;
  for (int64_t i = 0; i < count; ++i) {
    const double* part = values + 2 * (i % world.size() * most + i / world.size());
    totals.loss += part[0];
    totals.correct += part[1];
  }
  return totals;
}

// Transformed layers may keep what they derive from their weights; plain ones only read.
bool plain_on_cpu(Decoder& model) {
  return model.device().is_cpu() && model.transformed().empty() && model.buffers().all().empty();
}

}  // namespace

double Evaluation::perplexity() const { return std::exp(loss); }

Evaluation evaluate(Decoder& model, const TokenStream& stream, int64_t context, int64_t max_windows,
                    const EvaluationProgress& progress, World* world) {
  const int64_t predicted = stream.size() - 1;
  if (predicted < 1)
    fail("the corpus has {} tokens; at least 2 are needed to predict one", stream.size());
  const at::NoGradGuard no_grad;
  const bool spread = plain_on_cpu(model);
  int64_t windows = predicted / context;
  const int64_t rest = max_windows > 0 && max_windows <= windows ? 0 : predicted % context;
  if (max_windows > 0) windows = std::min(windows, max_windows);
  const int64_t per_batch =
      std::max<int64_t>(1, (spread ? kTokensPerCore : kTokensPerBatch) / context);
  std::vector<Batch> batches;
  for (int64_t first = 0; first < windows; first += per_batch)
    batches.push_back({first, first * context, std::min(per_batch, windows - first), context});
  if (rest > 0) batches.push_back({windows, windows * context, 1, rest});
  Meter meter(batches, progress);
  const Totals totals =
      total_of(model, stream, batches, spread, meter, world ? *world : World::single());
  Evaluation result;
  result.tokens = windows * context + rest;
  result.loss = totals.loss / static_cast<double>(result.tokens);
  result.accuracy = totals.correct / static_cast<double>(result.tokens);
  return result;
}

}  // namespace refract
