#include "decode/generation.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "core/error.h"
#include "core/random.h"

namespace refract {
namespace {

constexpr int64_t kReadEvery = 16;            // steps between looks for sequences that stopped
constexpr int64_t kTokensPerPrefill = 16384;  // enough to fill a GPU

// A tokenizer may have more tokens than the model has embeddings.
void check_prompt(const std::vector<TokenId>& prompt, int64_t vocab_size) {
  const auto beyond = std::find_if(prompt.begin(), prompt.end(),
                                   [&](TokenId token) { return token < 0 || token >= vocab_size; });
  if (beyond == prompt.end()) return;
  fail_usage(
      "the prompt holds the token {}, but the model's vocabulary has {} (0 to {}): its tokenizer "
      "has tokens that the model was never given; leave them out of the prompt",
      *beyond, vocab_size, vocab_size - 1);
}

}  // namespace

Generation::Generation(Decoder& model, int64_t batch, int64_t capacity,
                       const SamplingOptions& sampling, bool cuda_graph)
    : model_(model),
      sampling_(sampling),
      cuda_(cuda_graph && model.device().is_cuda() ? cuda_runtime() : nullptr),
      batch_(batch),
      longest_(std::min(capacity, model.plan().longest_cached)),
      by_lengths_(model.follows_lengths()) {
  if (!by_lengths_) {
    if (batch > 1) throw std::logic_error("this model decodes one sequence at a time");
    cuda_ = nullptr;
  }
  const auto options = at::TensorOptions().device(model.device());
  cache_ = model.make_cache(batch, longest_);
  if (by_lengths_) {
    cache_.lengths = at::zeros({batch}, options.dtype(at::kLong));
    // Places behind a sequence's end are masked, but a NaN there would come through.
    for (at::Tensor& values : cache_.values) values.zero_();
    for (at::Tensor& keys : cache_.keys) keys.zero_();
  }
  token_ = at::zeros({batch}, options.dtype(at::kLong));
  made_device_ = at::zeros({batch, sampling.max_tokens}, options.dtype(at::kLong));
  uniform_ = at::zeros({sampling.max_tokens, batch}, options.dtype(at::kFloat));
  steps_device_ = at::zeros({1}, options.dtype(at::kLong));
}

void Generation::start(const std::vector<std::vector<TokenId>>& prompts, int64_t first) {
  if (static_cast<int64_t>(prompts.size()) != batch_)
    throw std::logic_error("as many prompts as the batch");
  const at::NoGradGuard no_grad;
  first_ = first;
  steps_ = read_ = 0;
  steps_device_.zero_();
  seen_ = prompts;
  made_.assign(prompts.size(), {});
  stopped_.assign(prompts.size(), 0);
  held_.assign(prompts.size(), 0);
  at::Tensor last = at::empty({batch_}, at::kLong);
  at::Tensor uniform = at::empty(uniform_.sizes(), at::kFloat);
  for (int64_t row = 0; row < batch_; ++row) {
    std::vector<TokenId>& seen = seen_[row];
    if (seen.empty()) fail("generation needs at least one token to start from; give a --prompt");
    check_prompt(seen, model_.config().vocab_size);
    if (static_cast<int64_t>(seen.size()) > longest_)
      seen.erase(seen.begin(), seen.end() - longest_);
    last.mutable_data_ptr<int64_t>()[row] = seen.back();
    const int64_t number = first + row;
    RandomStream random(sampling_.seed,
                        number == 0 ? "generate" : fmt::format("generate:{}", number));
    for (int64_t step = 0; step < sampling_.max_tokens; ++step) {
      // Rounded to float it must stay below 1.
      uniform.mutable_data_ptr<float>()[step * batch_ + row] =
          std::min(static_cast<float>(random.uniform()), std::nextafter(1.0F, 0.0F));
    }
  }
  token_.copy_(last);
  uniform_.copy_(uniform);
  prefill();
}

// All but the last token of every prompt, several prompts at a time. A shorter one is filled up on
// its right: causal attention keeps what stands there from what counts, and new tokens take its
// places before anything looks at them.
void Generation::prefill() {
  size_t longest = 0;
  for (const auto& seen : seen_) longest = std::max(longest, seen.size() - 1);
  const int64_t count =
      std::max<int64_t>(1, kTokensPerPrefill / std::max<int64_t>(1, static_cast<int64_t>(longest)));
  for (int64_t first = 0; first < batch_; first += count) {
    std::vector<std::vector<TokenId>> rows;
    for (int64_t row = first; row < std::min(batch_, first + count); ++row)
      rows.emplace_back(seen_[row].begin(), seen_[row].end() - 1);
    feed(first, rows);
  }
}

// Fills the cache of neighbouring sequences from its beginning.
void Generation::feed(int64_t first, const std::vector<std::vector<TokenId>>& rows) {
  const auto count = static_cast<int64_t>(rows.size());
  size_t longest = 0;
  for (const auto& row : rows) longest = std::max(longest, row.size());
  at::Tensor lengths = at::empty({count}, at::kLong);
  for (int64_t i = 0; i < count; ++i) {
    held_[first + i] = static_cast<int64_t>(rows[i].size());
    lengths.mutable_data_ptr<int64_t>()[i] = held_[first + i];
  }
  if (longest > 0) {
    at::Tensor tokens = at::zeros({count, static_cast<int64_t>(longest)}, at::kInt);
    for (int64_t i = 0; i < count; ++i) {
      std::copy(rows[i].begin(), rows[i].end(),
                tokens.mutable_data_ptr<int32_t>() + i * static_cast<int64_t>(longest));
    }
    KvCache part = cache_.rows(first, count);
    ForwardContext context;
    context.cache = &part;
    context.weights_changed = std::exchange(weights_changed_, false);
    model_.hidden(context, tokens.to(model_.device()));
  }
  if (by_lengths_) {
    cache_.lengths.narrow(0, first, count).copy_(lengths);
  } else {
    cache_.length = held_[first];
  }
}

bool Generation::finished(int64_t row) const {
  return stopped_[row] != 0 || static_cast<int64_t>(made_[row].size()) >= sampling_.max_tokens;
}

// A sequence that fills its places goes on with the second half of what it has seen.
void Generation::restart_full_rows() {
  for (int64_t row = 0; row < batch_; ++row) {
    if (held_[row] < longest_ || finished(row)) continue;
    read({});
    const std::vector<TokenId>& seen = seen_[row];
    const auto keep = std::max<int64_t>(1, longest_ / 2);
    feed(row, {{seen.end() - keep, seen.end() - 1}});
  }
}

// A graph looks at all places; its attention reads those in use.
int64_t Generation::attended() const {
  if (cuda_) return longest_;
  int64_t longest = 0;
  for (int64_t row = 0; row < batch_; ++row) {
    if (!finished(row)) longest = std::max(longest, held_[row]);
  }
  return longest + 1;
}

void Generation::compute() {
  ForwardContext context;
  context.cache = &cache_;
  context.weights_changed = std::exchange(weights_changed_, false);
  const at::Tensor hidden = model_.hidden(context, token_.unsqueeze(1)).select(1, 0);
  const at::Tensor uniform = uniform_.index_select(0, steps_device_).squeeze(0);
  token_.copy_(sample_tokens(model_.logits(hidden), sampling_, uniform));
  made_device_.index_copy_(1, steps_device_, token_.unsqueeze(1));
  steps_device_.add_(1);
  // Those that stopped while others go on stay in the last place.
  if (by_lengths_) cache_.lengths.clamp_max_(longest_ - 1);
}

void Generation::step() {
  const at::NoGradGuard no_grad;
  restart_full_rows();
  if (by_lengths_) cache_.attended = attended();
  if (graph_) {
    graph_->replay();
  } else if (cuda_ && eager_steps_ >= kEagerSteps) {
    graph_ = cuda_->capture([this] { compute(); });
    graph_->replay();
  } else {
    compute();
    ++eager_steps_;
  }
  for (int64_t& held : held_) held = std::min(held + 1, longest_);
  ++steps_;
}

void Generation::read(const DecodeOptions& options) {
  if (read_ == steps_) return;
  const at::Tensor tokens = made_device_.narrow(1, read_, steps_ - read_).to(at::kCPU).contiguous();
  const int64_t* data = tokens.const_data_ptr<int64_t>();
  for (int64_t step = 0; step < steps_ - read_; ++step) {
    for (int64_t row = 0; row < batch_; ++row) {
      const auto token = static_cast<TokenId>(data[row * (steps_ - read_) + step]);
      if (stopped_[row] != 0) continue;
      if (std::find(sampling_.stop.begin(), sampling_.stop.end(), token) != sampling_.stop.end()) {
        stopped_[row] = 1;
        continue;
      }
      seen_[row].push_back(token);
      made_[row].push_back(token);
      if (options.on_token) options.on_token(first_ + row, token);
    }
  }
  read_ = steps_;
}

void Generation::run(const DecodeOptions& options) {
  const int64_t every = options.on_token ? 1 : kReadEvery;
  while (steps_ < sampling_.max_tokens) {
    step();
    if (steps_ % every == 0 || steps_ == sampling_.max_tokens) read(options);
    bool all = true;
    for (int64_t row = 0; row < batch_; ++row) all = all && finished(row);
    if (all) break;
  }
  read(options);
}

}  // namespace refract
