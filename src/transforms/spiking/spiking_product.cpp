#include "transforms/spiking/spiking_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "transforms/media/observer.h"

namespace refract {
namespace {

// An input that is whole in the first of `steps` steps, and its neurons, which fire by themselves.
class SpikeTrain {
 public:
  SpikeTrain(SpikingOperand& operand, const ForwardContext& context, const at::Tensor& x)
      : scale_(operand.scale(context, x)),
        target_(lsq_count(x, scale_, operand.levels())),
        count_(at::zeros_like(target_)) {}

  at::Tensor fire() {  // the spikes of the next step, in scale's type
    at::Tensor spikes = spikes_towards(target_, count_);
    count_ = count_.add(spikes);
    return spikes;
  }
  const at::Tensor& count() const { return count_; }
  const at::Tensor& scale() const { return scale_; }

 private:
  at::Tensor scale_, target_, count_;
};

// A sum of products over time steps.
void add_to(at::Tensor& sum, const at::Tensor& product) {
  sum = sum.defined() ? sum.add(product) : product;
}

// Of the products of a whole sequence's queries with its keys, the share that is seen: query i sees
// i keys, or `window` of them.
double visible(int64_t keys, int64_t window) {
  const int64_t rising = window > 0 ? std::min(keys, window) : keys;
  const int64_t seen = rising * (rising + 1) / 2 + (keys - rising) * rising;
  return static_cast<double>(seen) / static_cast<double>(keys * keys);
}

class SpikingProduct : public MediumProduct {
 public:
  enum class Place { kLinear, kScores, kValues };

  SpikingProduct(Place place, const SpikingParameters& parameters, int64_t window,
                 SpikingOperand first, std::optional<SpikingOperand> second)
      : place_(place),
        parameters_(parameters),
        window_(window),
        first_(std::move(first)),
        second_(std::move(second)) {}

  at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                      const at::Tensor& second) override {
    if (medium_observer()) return dense_product(first, second);
    if (SpikeTime* time = spike_time()) return stepped(context, first, second, *time);
    if (parameters_.spikes && !context.training) return run(context, first, second);
    return dense_product(first_.quantized(context, first),
                         second_ ? second_->quantized(context, second) : second);
  }

 private:
  // One step of the whole model.
  at::Tensor stepped(const ForwardContext& context, const at::Tensor& first,
                     const at::Tensor& second, SpikeTime& time) {
    // v's keys lie on its last dimension.
    const int64_t keys = second.size(place_ == Place::kValues ? -1 : -2);
    const double of_second = place_ == Place::kLinear ? 1 : visible(keys, window_);
    // A spike of a probability that is seen reaches all of v's row.
    const double of_first = place_ == Place::kValues ? 1 : of_second;
    const at::Tensor used =
        first_.stepped(context, first, time, of_first * static_cast<double>(second.size(-2)));
    if (!second_) return dense_product(used, second);
    return dense_product(used, second_->stepped(context, second, time,
                                                of_second * static_cast<double>(first.size(-2))));
  }

  // All time steps of this product alone, in scale's type: bfloat16 would round each step's sum.
  at::Tensor run(const ForwardContext& context, const at::Tensor& first, const at::Tensor& second) {
    SpikeTrain one(first_, context, first);
    const at::ScalarType wide = one.scale().scalar_type();
    at::Tensor sum;
    if (!second_) {
      const at::Tensor weight = second.to(wide);
      for (int64_t t = 0; t < parameters_.time_steps; ++t)
        add_to(sum, dense_product(one.fire(), weight));
      return sum.mul(one.scale()).to(first.scalar_type());
    }
    SpikeTrain two(*second_, context, second);
    for (int64_t t = 0; t < parameters_.time_steps; ++t) {
      const at::Tensor x1 = one.fire(), x2 = two.fire();  // and both counts with them: S1, S2
      add_to(sum, dense_product(one.count(), x2));
      add_to(sum, dense_product(x1, two.count()));
      add_to(sum, dense_product(x1, x2).neg());
    }
    return sum.mul(one.scale()).mul(two.scale()).to(first.scalar_type());
  }

  Place place_;
  SpikingParameters parameters_;
  int64_t window_;
  SpikingOperand first_;
  std::optional<SpikingOperand> second_;
};

}  // namespace

std::unique_ptr<MediumProduct> make_spiking_linear(Build build, const std::string& name,
                                                   const SpikingParameters& parameters) {
  return std::make_unique<SpikingProduct>(
      SpikingProduct::Place::kLinear, parameters, 0,
      SpikingOperand(build, name + ".x", parameters.levels, false), std::nullopt);
}

std::unique_ptr<MediumProduct> make_spiking_scores(Build build, const std::string& name,
                                                   const SpikingParameters& parameters,
                                                   int64_t window) {
  SpikingOperand q(build, name + ".q", parameters.levels, false);
  SpikingOperand k(build, name + ".k", parameters.levels, false);
  return std::make_unique<SpikingProduct>(SpikingProduct::Place::kScores, parameters, window,
                                          std::move(q), std::move(k));
}

std::unique_ptr<MediumProduct> make_spiking_values(Build build, const std::string& name,
                                                   const SpikingParameters& parameters,
                                                   int64_t window) {
  SpikingOperand probabilities(build, name + ".probabilities", parameters.levels, true);
  SpikingOperand v(build, name + ".v", parameters.levels, false);
  return std::make_unique<SpikingProduct>(SpikingProduct::Place::kValues, parameters, window,
                                          std::move(probabilities), std::move(v));
}

}  // namespace refract
