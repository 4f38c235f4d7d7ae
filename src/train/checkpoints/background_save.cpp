#include "train/checkpoints/background_save.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>

#include <stdexcept>
#include <utility>

#include "model/frozen_values.h"

namespace refract {
namespace {

void copy_to_host(at::Tensor& to, const at::Tensor& from) {
  if (!from.defined()) return;
  // Guides leave the state in the middle of a run.
  if (!to.defined() || to.sizes() != from.sizes())
    to = at::empty_like(from, from.options().device(at::kCPU));
  to.copy_(from);
}

}  // namespace

BackgroundSave::~BackgroundSave() {
  if (thread_.joinable()) thread_.join();
}

void BackgroundSave::start(int64_t step, Decoder& model, const OptimizerState& state, Write write) {
  if (thread_.joinable()) throw std::logic_error("the save before was not taken");
  const at::NoGradGuard no_grad;
  if (!model.arena().has_guides()) copy_->arena().drop_guides();
  copy_->arena().master().copy_(model.arena().master());
  frozen_values(copy_->arena()).copy_(frozen_values(model.arena()));
  for (size_t i = 0; i < model.buffers().all().size(); ++i)
    copy_->buffers().all()[i].tensor.copy_(model.buffers().all()[i].tensor);
  copy_to_host(state_.exp_avg, state.exp_avg);
  copy_to_host(state_.exp_avg_sq, state.exp_avg_sq);
  saved_ = {step, {}};
  error_ = nullptr;
  done_ = false;
  thread_ = std::thread([this, write = std::move(write)] {
    try {
      saved_.folder = write(*copy_, state_);
    } catch (...) {
      error_ = std::current_exception();
    }
    done_ = true;
  });
}

std::optional<BackgroundSave::Saved> BackgroundSave::take(bool wait) {
  if (!thread_.joinable() || (!wait && !done_)) return std::nullopt;
  thread_.join();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  return saved_;
}

}  // namespace refract
