// A model's mean loss over fixed tokens as a function of its trainable parameters.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/decoder.h"

namespace refract {

// Windows that are computed together; activations exist of one batch at a time.
struct LossBatch {
  at::Tensor inputs, targets;  // int [windows, length], on the model's device
  ForwardContext context;      // of an evaluation, so that its noise is that of `refract eval`
};

class MeanLoss {
 public:
  // The model's master and compute types must be the same. Fails (usage) where it has no trainable
  // parameter.
  MeanLoss(Decoder& model, std::vector<LossBatch> batches);

  Decoder& model() { return model_; }
  const std::vector<LossBatch>& batches() const { return batches_; }
  int64_t tokens() const { return tokens_; }  // predicted
  // Of a flat vector of parameters: all trainable ones, padding included.
  int64_t size() const;
  // The arena's own numbers, [size].
  at::Tensor weights() const;
  // weights = from + scale * along, both [size] on the model's device.
  void move_to(const at::Tensor& from, const at::Tensor& along, double scale);

  // Nats per token.
  double value();
  // Of value(), [size], a view of the arena's gradients that the next call overwrites. Through
  // layers that quantize it is the one that training takes, straight through them.
  at::Tensor gradient();

 private:
  Decoder& model_;
  std::vector<LossBatch> batches_;
  int64_t tokens_ = 0;
};

}  // namespace refract
