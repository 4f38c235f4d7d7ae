#include "transforms/spiking/spike_time.h"

#include <ATen/ops/sum.h>

#include <algorithm>

namespace refract {
namespace {

SpikeTime*& current_time() {
  static SpikeTime* time = nullptr;
  return time;
}

}  // namespace

SpikeTime::SpikeTime() : before_(current_time()) { current_time() = this; }

SpikeTime::~SpikeTime() { current_time() = before_; }

double SpikeTime::bias_share(int64_t levels) {
  longest_ = std::max(longest_, levels);
  return at_rest() ? 1 : std::min(1.0, static_cast<double>(step_) / static_cast<double>(levels));
}

void SpikeTime::count(const std::string& operand, const at::Tensor& spikes, double additions_each) {
  const at::Tensor fired = spikes.abs().sum(at::kDouble);
  SpikeCount& of = counts_[operand];
  if (step_ == 1) of.values += spikes.numel();
  if (!of.spikes.defined()) {
    of.spikes = fired;
    of.additions = fired.mul(additions_each);
    return;
  }
  of.spikes.add_(fired);
  of.additions.add_(fired, additions_each);
}

SpikeTime* spike_time() { return current_time(); }

}  // namespace refract
