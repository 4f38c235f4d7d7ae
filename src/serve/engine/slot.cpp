#include "serve/engine/slot.h"

#include <ATen/ops/zeros.h>

#include <utility>
#include <vector>

namespace refract {

Slot::Slot(ModelUse& use, int64_t capacity)
    : use_(use),
      cache_(use.model().make_cache(1, capacity)),
      by_lengths_(use.model().follows_lengths()) {
  // The path that `refract generate` takes, so that both make the same tokens.
  if (by_lengths_) {
    cache_.lengths = at::zeros({1}, cache_.keys.front().options().dtype(at::kLong));
    // Places behind a sequence's end are masked, but a NaN there would come through.
    for (at::Tensor& values : cache_.values) values.zero_();
    for (at::Tensor& keys : cache_.keys) keys.zero_();
  }
}

void Slot::start(Work work) {
  work_.emplace(std::move(work));
  random_ = sampling_stream(*work_);
  last_ = work_->prompt.back();
  made_ = 0;
  held_ = static_cast<int64_t>(work_->prompt.size()) - 1;
  if (held_ > 0) {
    KvCache part = cache_.rows(0, 1);
    use_.hidden({work_->prompt.begin(), work_->prompt.end() - 1}, &part);
  }
  if (by_lengths_) {
    cache_.lengths.fill_(held_);
  } else {
    cache_.length = held_;
  }
}

Slot::Step Slot::step() {
  if (by_lengths_) cache_.attended = held_ + 1;
  const at::Tensor states = use_.hidden({last_}, &cache_).select(1, 0);  // [1, C]
  ++held_;
  Step step{draw_token(use_.model().logits(states), *work_, *random_), {}};
  last_ = step.token.token;
  ++made_;
  if (is_stop(*work_, last_)) {
    step.end = End::kStop;
  } else if (made_ == work_->sampling.max_tokens) {
    step.end = End::kLength;
  }
  return step;
}

}  // namespace refract
