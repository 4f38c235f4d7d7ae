#include "decode/sampling.h"

#include <ATen/ops/argmax.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/topk.h>

#include <algorithm>
#include <tuple>

namespace refract {
namespace {

// The first place per row at which the running sum of `weights` [B, V] passes u of the whole, at
// most `last` [B, 1]: a rounded product may reach the sum itself.
at::Tensor pick(const at::Tensor& weights, const at::Tensor& uniform_B, const at::Tensor& last) {
  const at::Tensor sums = weights.cumsum(-1);
  const at::Tensor target = sums.narrow(1, sums.size(1) - 1, 1).mul(uniform_B.unsqueeze(1));
  return at::searchsorted(sums, target, /*out_int32=*/false, /*right=*/true).minimum(last);
}

}  // namespace

at::Tensor sample_tokens(const at::Tensor& logits_BV, const SamplingOptions& options,
                         const at::Tensor& uniform_B) {
  if (options.temperature == 0) return at::argmax(logits_BV, -1);
  const int64_t vocabulary = logits_BV.size(1);
  const at::Tensor scaled = logits_BV.to(at::kFloat).div(options.temperature);
  const int64_t k = options.top_k > 0 ? std::min(options.top_k, vocabulary) : vocabulary;
  if (k == vocabulary && options.top_p >= 1) {
    const at::Tensor last = uniform_B.unsqueeze(1).to(at::kLong).fill_(vocabulary - 1);
    return pick(at::softmax(scaled, -1), uniform_B, last).squeeze(1);
  }
  const auto [best, order] =
      k < vocabulary ? at::topk(scaled, k) : at::sort(scaled, -1, /*descending=*/true);
  at::Tensor weights = at::softmax(best, -1);
  at::Tensor last = uniform_B.unsqueeze(1).to(at::kLong).fill_(k - 1);
  if (options.top_p < 1) {  // the likeliest tokens whose probability reaches top_p, one at least
    const at::Tensor kept = weights.cumsum(-1).sub(weights).lt(options.top_p);
    last = kept.sum(-1, /*keepdim=*/true).sub(1).clamp_min(0);
    weights = weights.masked_fill(kept.logical_not(), 0);
  }
  return order.gather(1, pick(weights, uniform_B, last)).squeeze(1);
}

}  // namespace refract
