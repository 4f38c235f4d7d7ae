// The time of a spiking model: while a SpikeTime lives, each forward pass of a model with spiking
// layers is one time step of all of them together.
//
// What flows between spiking products is kept as the sum over the steps so far, X_t. A neuron adds
// what is new, and fires at most once; a product takes the sums of spikes, whose product is the sum
// of what the spikes of single steps come to:
//   sum over t of (S1 x2 + x1 S2 - x1 x2) = S1 S2.
// What is not linear, norms, softmax and activations, gives f(X_t) - f(X_{t-1}) in a step, of
// which the sum is f(X_t) (ST-BIF neurons: You et al., "SpikeZIP-TF", arXiv 2406.03470). So a
// step costs a forward pass, and after enough of them the model is the quantized one, bit by bit.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace refract {

// Of an operand, since the SpikeTime lives.
struct SpikeCount {
  at::Tensor spikes;     // double scalar on the device, as
  at::Tensor additions;  // of a number to a sum, that they caused
  int64_t values = 0;    // neurons, of all batches
};

class SpikeTime {
 public:
  SpikeTime();
  ~SpikeTime();
  SpikeTime(const SpikeTime&) = delete;
  SpikeTime& operator=(const SpikeTime&) = delete;

  // Before a forward pass: the first step of another batch, or the next step of this one.
  void begin() { step_ = 1; }
  void advance() { ++step_; }
  // Or: forward passes are those of the quantized model, to which the steps lead.
  void rest() { step_ = 0; }

  int64_t step() const { return step_; }
  bool at_rest() const { return step_ == 0; }
  // Of a bias, which enters in equal parts in the first `levels` steps.
  double bias_share(int64_t levels);
  // Whether that was the whole for all that asked.
  bool biases_are_in() const { return at_rest() || step_ >= longest_; }

  // operand: "model.layers.3.mlp.down_proj.x". spikes: -1, 0 and 1.
  void count(const std::string& operand, const at::Tensor& spikes, double additions_each);
  const std::map<std::string, SpikeCount>& counts() const { return counts_; }

 private:
  int64_t step_ = 0, longest_ = 0;
  std::map<std::string, SpikeCount> counts_;
  SpikeTime* before_;
};

// The one that lives; null: none. Forward passes with one run on one thread.
SpikeTime* spike_time();

}  // namespace refract
