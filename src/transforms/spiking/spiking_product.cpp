#include "transforms/spiking/spiking_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>

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
        count_(at::zeros_like(target_)),
        type_(x.scalar_type()) {}

  at::Tensor fire() {  // the spikes of the next step, in x's type
    const at::Tensor spikes = spikes_towards(target_, count_);
    count_ = count_.add(spikes);
    return spikes.to(type_);
  }
  at::Tensor count() const { return count_.to(type_); }
  const at::Tensor& scale() const { return scale_; }

 private:
  at::Tensor scale_, target_, count_;
  at::ScalarType type_;
};

// A sum of products over time steps: in scale's type, since those of bfloat16 would be rounded in
// each.
void add_to(at::Tensor& sum, const at::Tensor& product, at::ScalarType type) {
  sum = sum.defined() ? sum.add(product.to(type)) : product.to(type);
}

// What shares an edge of the causal mask: of the products of all queries with all keys, those that
// are seen.
double visible(const at::Tensor& first, const at::Tensor& second) {
  const auto queries = static_cast<double>(first.size(-2)),
             keys = static_cast<double>(second.size(-2));
  return queries > 1 ? (keys + 1) / (2 * keys) : 1;
}

class SpikingProduct : public MediumProduct {
 public:
  enum class Place { kLinear, kScores, kValues };

  SpikingProduct(Place place, const SpikingParameters& parameters, SpikingOperand first,
                 std::optional<SpikingOperand> second)
      : place_(place),
        parameters_(parameters),
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
    const double seen = place_ == Place::kLinear ? 1 : visible(first, second);
    // A spike of a probability that is seen reaches all of v's row.
    const double of_first = place_ == Place::kValues ? 1 : seen;
    const double of_second = place_ == Place::kValues ? values_seen(second) : seen;
    const at::Tensor used =
        first_.stepped(context, first, time, of_first * static_cast<double>(second.size(-2)));
    if (!second_) return dense_product(used, second);
    return dense_product(used, second_->stepped(context, second, time,
                                                of_second * static_cast<double>(first.size(-2))));
  }

  // v's keys lie on its last dimension.
  static double values_seen(const at::Tensor& v) {
    const auto keys = static_cast<double>(v.size(-1));
    return (keys + 1) / (2 * keys);
  }

  // All time steps of this product alone.
  at::Tensor run(const ForwardContext& context, const at::Tensor& first, const at::Tensor& second) {
    SpikeTrain one(first_, context, first);
    const at::ScalarType wide = one.scale().scalar_type();
    at::Tensor sum;
    if (!second_) {
      for (int64_t t = 0; t < parameters_.time_steps; ++t)
        add_to(sum, dense_product(one.fire(), second), wide);
      return sum.mul(one.scale()).to(first.scalar_type());
    }
    SpikeTrain two(*second_, context, second);
    for (int64_t t = 0; t < parameters_.time_steps; ++t) {
      const at::Tensor x1 = one.fire(), x2 = two.fire();  // and both counts with them: S1, S2
      add_to(sum, dense_product(one.count(), x2), wide);
      add_to(sum, dense_product(x1, two.count()), wide);
      add_to(sum, dense_product(x1, x2).neg(), wide);
    }
    return sum.mul(one.scale()).mul(two.scale()).to(first.scalar_type());
  }

  Place place_;
  SpikingParameters parameters_;
  SpikingOperand first_;
  std::optional<SpikingOperand> second_;
};

}  // namespace

std::unique_ptr<MediumProduct> make_spiking_linear(Build build, const std::string& name,
                                                   const SpikingParameters& parameters) {
  return std::make_unique<SpikingProduct>(
      SpikingProduct::Place::kLinear, parameters,
      SpikingOperand(build, name + ".x", parameters.levels, false), std::nullopt);
}

std::unique_ptr<MediumProduct> make_spiking_scores(Build build, const std::string& name,
                                                   const SpikingParameters& parameters) {
  SpikingOperand q(build, name + ".q", parameters.levels, false);
  SpikingOperand k(build, name + ".k", parameters.levels, false);
  return std::make_unique<SpikingProduct>(SpikingProduct::Place::kScores, parameters, std::move(q),
                                          std::move(k));
}

std::unique_ptr<MediumProduct> make_spiking_values(Build build, const std::string& name,
                                                   const SpikingParameters& parameters) {
  SpikingOperand probabilities(build, name + ".probabilities", parameters.levels, true);
  SpikingOperand v(build, name + ".v", parameters.levels, false);
  return std::make_unique<SpikingProduct>(SpikingProduct::Place::kValues, parameters,
                                          std::move(probabilities), std::move(v));
}

}  // namespace refract
