// Tells during a backward pass which decoder layers are through, so that their gradients can be
// sent while those of the layers before them are computed.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace refract {

// Of the training calls of this thread while it lives: once the gradients of all parameters of a
// decoder layer are in the arena (or enqueued, on the current stream), done(layer) is called in the
// thread that computes them. What follows the last layer counts as one more: the final norm, and a
// head of its own. From there on down; not for the first layer, nor for one below which nothing is
// trained.
class LayerGradients {
 public:
  using Done = std::function<void(int64_t layer)>;
  explicit LayerGradients(Done done);
  ~LayerGradients();
  LayerGradients(const LayerGradients&) = delete;
  LayerGradients& operator=(const LayerGradients&) = delete;

  // For the decoder: `input` enters that layer and nothing else. Does nothing outside of any scope.
  static void watch(const at::Tensor& input, int64_t layer);

 private:
  std::shared_ptr<Done> before_;
};

}  // namespace refract
