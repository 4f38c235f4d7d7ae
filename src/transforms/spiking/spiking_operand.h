// An operand of a product that becomes levels, or spikes: its scale and its neurons.
//
// The scale is s = s0 exp(p). s0 comes from data: 2 mean|x| / sqrt(high), moved by 0.9 in the first
// 20 training calls; of probabilities, most of which are next to nothing, the root of the mean
// square in place of the mean, over those that are not 0. p is a parameter, 0 at first, so that a
// step of the optimizer changes the scale by its share, and weight decay draws it to s0.
//
// A neuron's membrane starts at s / 2 and adds what comes in. At s and above it fires +1 while its
// count of spikes is below `high`, below 0 it fires -1 while that is above `low`, and what fires
// takes s off. So its count goes towards clamp(floor(X / s + 1/2), low, high) by one a step, X
// being the sum of its inputs.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "model/slots.h"
#include "transforms/spiking/lsq.h"
#include "transforms/spiking/spike_time.h"

namespace refract {

class SpikingOperand {
 public:
  // `name`: "model.layers.3.mlp.down_proj.x". Declares the parameter "<name>_log_scale" [1] and the
  // buffer "<name>_start", float [2]: minus the number of calls that moved s0, and s0; (+inf, -inf)
  // before the first. Until then an evaluation takes s0 from the data of the call, and time steps
  // that of the last pass at rest.
  SpikingOperand(Build build, const std::string& name, int64_t levels, bool is_probability);

  // s, a scalar, for this call: recorded by autograd, and moved in training.
  at::Tensor scale(const ForwardContext& context, const at::Tensor& x);
  const Levels& levels() const { return levels_; }

  // x in levels, in its type, recorded by autograd.
  at::Tensor quantized(const ForwardContext& context, const at::Tensor& x);
  // The sum of the spikes so far times s, in x's type, after a step in which the input came to x.
  // additions_each: what a spike costs, for the count.
  at::Tensor stepped(const ForwardContext& context, const at::Tensor& x, SpikeTime& time,
                     double additions_each);

 private:
  at::Tensor from_data(const at::Tensor& x) const;
  at::Tensor start(const ForwardContext& context, const at::Tensor& x);

  std::string name_;
  Levels levels_;
  bool is_probability_;
  ParameterArena& arena_;
  Parameter* log_scale_;
  BufferStore::Buffer* start_;
  bool known_ = false;  // whether the buffer is set; asks the device once
  at::Tensor count_;    // of the neurons, in a SpikeTime
  at::Tensor resting_;  // its scale, where data of the call give that: the last pass' at rest
};

// Where neurons that have fired `count` fire on their way to `target`: -1, 0, 1.
at::Tensor spikes_towards(const at::Tensor& target, const at::Tensor& count);

}  // namespace refract
