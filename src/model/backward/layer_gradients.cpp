#include "model/backward/layer_gradients.h"

#include <utility>

namespace refract {
namespace {

std::shared_ptr<LayerGradients::Done>& current() {
  thread_local std::shared_ptr<LayerGradients::Done> done;
  return done;
}

}  // namespace

LayerGradients::LayerGradients(Done done)
    : before_(std::exchange(current(), std::make_shared<Done>(std::move(done)))) {}

LayerGradients::~LayerGradients() { current() = std::move(before_); }

// A tensor's gradient is complete when all that it enters has gone backward: the layer. Leaves take
// theirs before anything else runs, so those of the layer have them.
void LayerGradients::watch(const at::Tensor& input, int64_t layer) {
  if (!current() || !input.requires_grad()) return;
  input.register_hook([done = current(), layer](const at::Tensor&) { (*done)(layer); });
}

}  // namespace refract
