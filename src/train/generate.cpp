#include "train/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/error.h"
#include "core/random.h"

namespace refract {
namespace {

// Feeds tokens to the model and returns the logits behind the last one.
std::vector<float> next_logits(Decoder& model, KvCache& cache, std::vector<TokenId> tokens) {
  ForwardContext context;
  context.cache = &cache;
  const at::Tensor input = at::from_blob(tokens.data(), {1, static_cast<int64_t>(tokens.size())},
                                         at::TensorOptions().dtype(at::kInt))
                               .to(model.device(), at::kInt, false, true);
  const at::Tensor hidden = model.hidden(context, input);
  const at::Tensor logits =
      model.logits(hidden.select(1, hidden.size(1) - 1)).to(at::kCPU, at::kFloat).contiguous();
  const float* data = logits.const_data_ptr<float>();
  return {data, data + logits.numel()};
}

}  // namespace

TokenId sample_token(std::vector<float> logits, const SamplingOptions& options, double u) {
  if (options.temperature == 0) {
    return static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  }
  std::vector<TokenId> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const bool limited = options.top_k > 0 || options.top_p < 1;
  if (limited) {
    std::stable_sort(order.begin(), order.end(),
                     [&](TokenId a, TokenId b) { return logits[a] > logits[b]; });
    if (options.top_k > 0 && options.top_k < static_cast<int64_t>(order.size()))
      order.resize(options.top_k);
  }
  const float top = *std::max_element(logits.begin(), logits.end());
  std::vector<double> weights;
  double total = 0;
  for (TokenId id : order) {
    weights.push_back(std::exp((logits[id] - top) / options.temperature));
    total += weights.back();
  }
  if (options.top_p < 1) {  // the smallest set of likeliest tokens whose probability reaches top_p
    double sum = 0;
    size_t kept = 0;
    while (kept < weights.size() && sum < options.top_p * total) sum += weights[kept++];
    weights.resize(std::max<size_t>(kept, 1));
    total = std::accumulate(weights.begin(), weights.end(), 0.0);
  }
  double left = u * total;
  for (size_t i = 0; i < weights.size(); ++i) {
    left -= weights[i];
    if (left < 0) return order[i];
  }
  return order[weights.size() - 1];
}

std::vector<TokenId> prompt_tokens(const Tokenizer& tokenizer, const std::string& text) {
  std::vector<TokenId> tokens = tokenizer.encode(text);
  if (tokens.empty()) tokens = {tokenizer.end_of_text().value_or(0)};
  return tokens;
}

std::vector<TokenId> generate(Decoder& model, const std::vector<TokenId>& prompt,
                              const SamplingOptions& options,
                              const std::function<void(TokenId)>& on_token) {
  if (prompt.empty()) fail("generation needs at least one token to start from; give a --prompt");
  at::NoGradGuard no_grad;
  const int64_t longest = model.config().max_position_embeddings;
  RandomStream random(options.seed, "generate");
  std::vector<TokenId> seen = prompt;
  if (static_cast<int64_t>(seen.size()) > longest) seen.erase(seen.begin(), seen.end() - longest);
  KvCache cache = model.make_cache(1, longest);
  std::vector<TokenId> pending = seen, made;
  while (static_cast<int64_t>(made.size()) < options.max_tokens) {
    if (cache.length + static_cast<int64_t>(pending.size()) > longest) {
      cache.length = 0;
      pending.assign(seen.end() - std::max<int64_t>(1, longest / 2), seen.end());
    }
    const std::vector<float> logits = next_logits(model, cache, pending);
    const TokenId token = sample_token(logits, options, random.uniform());
    if (options.stop && token == *options.stop) break;
    made.push_back(token);
    seen.push_back(token);
    pending = {token};
    if (on_token) on_token(token);
  }
  return made;
}

}  // namespace refract
