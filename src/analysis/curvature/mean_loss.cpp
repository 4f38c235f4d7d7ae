#include "analysis/curvature/mean_loss.h"

#include <ATen/core/grad_mode.h>

#include <stdexcept>
#include <utility>

#include "core/error.h"

namespace refract {

MeanLoss::MeanLoss(Decoder& model, std::vector<LossBatch> batches)
    : model_(model), batches_(std::move(batches)) {
  if (!model_.arena().compute().is_same(model_.arena().master()))
    throw std::logic_error("curvature is that of the numbers that a model computes with");
  if (size() == 0) fail_usage("the model has no trainable parameter, so its loss has no curvature");
  for (const LossBatch& batch : batches_) tokens_ += batch.targets.numel();
}

int64_t MeanLoss::size() const { return model_.arena().core_size(); }

at::Tensor MeanLoss::weights() const { return model_.arena().master().narrow(0, 0, size()); }

void MeanLoss::move_to(const at::Tensor& from, const at::Tensor& along, double scale) {
  const at::NoGradGuard no_grad;
  at::Tensor own = weights();
  own.copy_(from);
  if (scale != 0) own.add_(along, scale);
}

double MeanLoss::value() {
  const at::NoGradGuard no_grad;
  double sum = 0;
  for (const LossBatch& batch : batches_)
    sum += model_.loss(batch.context, batch.inputs, batch.targets).sum.item<double>();
  return sum / static_cast<double>(tokens_);
}

at::Tensor MeanLoss::gradient() {
  const at::AutoGradMode with_gradients(true);
  at::Tensor grads = model_.arena().grads();
  grads.zero_();
  for (const LossBatch& batch : batches_) {
    const Decoder::Loss loss = model_.loss(batch.context, batch.inputs, batch.targets);
    loss.sum.div(static_cast<double>(tokens_)).backward();
  }
  return grads.narrow(0, 0, size());
}

}  // namespace refract
