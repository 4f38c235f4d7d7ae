#include "train/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "core/error.h"

namespace refract {
namespace {

constexpr int64_t kTokensPerBatch = 16384;  // enough to fill a GPU, little enough for a laptop

struct Totals {
  at::Tensor loss, correct;  // double and int64 scalars on the device
};

// Windows of `length` + 1 tokens from `begin` on; `first` is the number of the first of them in the
// evaluation.
struct Batch {
  int64_t first = 0, begin = 0, windows = 0, length = 0;
};

void add_batch(Decoder& model, const TokenStream& stream, const Batch& at, Totals& totals) {
  const int64_t size = at.length + 1;
  at::Tensor host = at::empty({at.windows, size}, at::TensorOptions().dtype(at::kInt));
  int32_t* data = host.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < at.windows; ++i)
    stream.read(at.begin + i * at.length, {data + i * size, static_cast<size_t>(size)});
  const at::Tensor batch = host.to(model.device());
  ForwardContext context;
  context.clock = at::tensor({kEvaluationStep, at.first}, at::kLong).to(model.device());
  context.weights_changed = at.first == 0;
  const Decoder::Loss loss = model.loss(context, batch.narrow(1, 0, at.length).contiguous(),
                                        batch.narrow(1, 1, at.length).contiguous());
  totals.loss += loss.sum;
  totals.correct += loss.correct;
}

}  // namespace

double Evaluation::perplexity() const { return std::exp(loss); }

Evaluation evaluate(Decoder& model, const TokenStream& stream, int64_t context,
                    int64_t max_windows) {
  const int64_t predicted = stream.size() - 1;
  if (predicted < 1)
    fail("the corpus has {} tokens; at least 2 are needed to predict one", stream.size());
  at::NoGradGuard no_grad;
  const auto options = at::TensorOptions().device(model.device());
  Totals totals{at::zeros({}, options.dtype(at::kDouble)), at::zeros({}, options.dtype(at::kLong))};
  int64_t windows = predicted / context;
  const int64_t rest = max_windows > 0 && max_windows <= windows ? 0 : predicted % context;
  if (max_windows > 0) windows = std::min(windows, max_windows);
  const int64_t per_batch = std::max<int64_t>(1, kTokensPerBatch / context);
  for (int64_t first = 0; first < windows; first += per_batch) {
    const int64_t count = std::min(per_batch, windows - first);
    add_batch(model, stream, {first, first * context, count, context}, totals);
  }
  if (rest > 0) add_batch(model, stream, {windows, windows * context, 1, rest}, totals);
  Evaluation result;
  result.tokens = windows * context + rest;
  result.loss = totals.loss.item<double>() / static_cast<double>(result.tokens);
  result.accuracy =
      static_cast<double>(totals.correct.item<int64_t>()) / static_cast<double>(result.tokens);
  return result;
}

}  // namespace refract
