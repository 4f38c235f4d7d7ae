#include "train/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <cmath>

#include "core/error.h"

namespace refract {
namespace {

constexpr int64_t kTokensPerBatch = 16384;  // enough to fill a GPU, little enough for a laptop

struct Totals {
  at::Tensor loss, correct;  // double and int64 scalars on the device
};

void add_batch(Decoder& model, const TokenStream& stream, int64_t begin, int64_t windows,
               int64_t context, Totals& totals) {
  at::Tensor host = at::empty({windows, context + 1}, at::TensorOptions().dtype(at::kInt));
  int32_t* data = host.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < windows; ++i) {
    stream.read(begin + i * context, {data + i * (context + 1), static_cast<size_t>(context + 1)});
  }
  const at::Tensor batch = host.to(model.device());
  const Decoder::Loss loss = model.loss({}, batch.narrow(1, 0, context).contiguous(),
                                        batch.narrow(1, 1, context).contiguous());
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
    add_batch(model, stream, first * context, std::min(per_batch, windows - first), context,
              totals);
  }
  if (rest > 0) add_batch(model, stream, windows * context, 1, rest, totals);
  Evaluation result;
  result.tokens = windows * context + rest;
  result.loss = totals.loss.item<double>() / static_cast<double>(result.tokens);
  result.accuracy =
      static_cast<double>(totals.correct.item<int64_t>()) / static_cast<double>(result.tokens);
  return result;
}

}  // namespace refract
