#include "serve/engine/model_use.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/topk.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "core/error.h"

namespace refract {
namespace {

constexpr int64_t kMostLogits = 1 << 23;  // at a time: 32 MB of floats

at::Tensor to_tensor(const std::vector<TokenId>& tokens) {
  at::Tensor out = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kInt);
  std::copy(tokens.begin(), tokens.end(), out.mutable_data_ptr<int32_t>());
  return out;
}

// The scores of tokens [n] under logits [n, V].
std::vector<TokenScore> scores_of(const at::Tensor& logits, const TokenId* tokens, int64_t top) {
  const int64_t count = logits.size(0);
  const at::Tensor logprobs = at::log_softmax(logits.to(at::kFloat), -1);
  at::Tensor wanted = at::empty({count, 1}, at::kLong);
  std::copy(tokens, tokens + count, wanted.mutable_data_ptr<int64_t>());
  const at::Tensor own = logprobs.gather(1, wanted.to(logits.device())).to(at::kCPU).contiguous();
  const int64_t k = std::min(top, logits.size(1));
  at::Tensor best, ids;
  if (k > 0) {
    std::tie(best, ids) = at::topk(logprobs, k);
    best = best.to(at::kCPU).contiguous();
    ids = ids.to(at::kCPU).contiguous();
  }
  std::vector<TokenScore> scores(static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) {
    TokenScore& score = scores[static_cast<size_t>(i)];
    score.token = tokens[i];
    score.logprob = own.const_data_ptr<float>()[i];
    if (!std::isfinite(*score.logprob))
      fail("the model's logits are not finite; its weights or its medium are broken");
    for (int64_t j = i * k; j < (i + 1) * k; ++j) {
      score.top.emplace_back(static_cast<TokenId>(ids.const_data_ptr<int64_t>()[j]),
                             best.const_data_ptr<float>()[j]);
    }
  }
  return scores;
}

}  // namespace

at::Tensor ModelUse::hidden(const std::vector<TokenId>& tokens, KvCache* cache) {
  ForwardContext context;
  context.cache = cache;
  context.weights_changed = weights_changed_;
  at::Tensor states = model_.hidden(context, to_tensor(tokens).to(model_.device()));
  weights_changed_ = false;  // not where that failed
  return states;
}

bool ModelUse::is_causal() {
  return model_.transformed().empty() && model_.buffers().all().empty();
}

bool is_stop(const Work& work, TokenId token) {
  const std::vector<TokenId>& stop = work.sampling.stop;
  return std::find(stop.begin(), stop.end(), token) != stop.end();
}

RandomStream sampling_stream(const Work& work) {
  return {work.sampling.seed,
          work.number == 0 ? "generate" : fmt::format("generate:{}", work.number)};
}

TokenScore draw_token(const at::Tensor& logits_1V, const Work& work, RandomStream& random) {
  // Rounded to float it must stay below 1.
  const float uniform = std::min(static_cast<float>(random.uniform()), std::nextafter(1.0F, 0.0F));
  if (!std::isfinite(logits_1V.sum().item<double>()))
    fail("the model's logits are not finite; its weights or its medium are broken");
  const at::Tensor number = at::full({1}, uniform, logits_1V.options().dtype(at::kFloat));
  const auto token =
      static_cast<TokenId>(sample_tokens(logits_1V, work.sampling, number).item<int64_t>());
  if (work.logprobs < 0) return {token, std::nullopt, {}};
  return scores_of(logits_1V, &token, work.logprobs).front();
}

PromptScores score_prompt(ModelUse& use, const Work& work) {
  const auto count = static_cast<int64_t>(work.prompt.size());
  const bool next = work.sampling.max_tokens > 0;
  PromptScores out;
  out.tokens.push_back({work.prompt.front(), std::nullopt, {}});
  const std::vector<TokenId> read(work.prompt.begin(), work.prompt.end() - (next ? 0 : 1));
  if (read.empty()) return out;
  const at::Tensor states = use.hidden(read, nullptr).select(0, 0);  // [T, C]
  const int64_t chunk =
      std::max<int64_t>(1, kMostLogits / std::max<int64_t>(1, use.model().config().vocab_size));
  for (int64_t begin = 0; begin + 1 < count; begin += chunk) {
    const int64_t size = std::min(chunk, count - 1 - begin);
    const at::Tensor logits = use.model().logits(states.narrow(0, begin, size));
    for (TokenScore& score : scores_of(logits, work.prompt.data() + begin + 1, work.logprobs))
      out.tokens.push_back(std::move(score));
  }
  if (next) {
    RandomStream random = sampling_stream(work);
    out.next = draw_token(use.model().logits(states.narrow(0, count - 1, 1)), work, random);
  }
  return out;
}

}  // namespace refract
