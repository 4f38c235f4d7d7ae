// What an optimizer step writes, for StepCheck.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/decoder.h"
#include "train/state/step_check.h"

namespace refract {

// Those beside the model's own.
struct StepTensors {
  at::Tensor record;       // float [2]: loss, norm of the gradient
  at::Tensor control;      // float [4], see ops/dense/optimizer/optimizer.h
  at::Tensor exp_avg;      // flat, as the arena is
  at::Tensor exp_avg_sq;   // undefined for sgd
  at::Tensor accumulated;  // sum of the micro-batches' gradients; may be undefined
};

// In the order in which a step computes them. An element of a flat buffer is named by its parameter
// and its place in it. Valid until the model's guides are dropped.
std::vector<StepPart> step_parts(Decoder& model, const StepTensors& tensors);

}  // namespace refract
