#include "transforms/spiking/spiking_projections.h"

#include <vector>

#include "transforms/layer_group.h"
#include "transforms/media/medium_layers.h"

namespace refract {
namespace {

// The group's product, for a member that is seen alone.
class SharedProduct : public MediumProduct {
 public:
  explicit SharedProduct(MediumProduct& product) : product_(product) {}
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                      const at::Tensor& second) override {
    return product_.multiply(context, first, second);
  }

 private:
  MediumProduct& product_;
};

class SpikingProjections : public Projections {
 public:
  SpikingProjections(Build build, const ProjectionSpec& spec, const SpikingParameters& parameters,
                     const std::string& kind)
      : arena_(build.arena),
        activation_(spec.activation),
        levels_(parameters.levels),
        product_(make_spiking_linear(build, spec.members.front().name, parameters)),
        weights_(declare_weights(build, spec.members)),
        group_(build, spec, kind, [&](size_t m, int64_t /*first*/) {
          return std::make_unique<MediumLinear>(build, weights_[m], spec.members[m],
                                                std::make_unique<SharedProduct>(*product_));
        }) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const at::Tensor y = product_->multiply(context, x, arena_.joint_leaf(weights_));
    at::Tensor bias = group_.bias();
    SpikeTime* time = spike_time();
    if (bias.defined() && time) bias = bias.mul(time->bias_share(levels_));
    return apply_epilogue(y, bias, activation_);
  }

 private:
  ParameterArena& arena_;
  Activation activation_;
  int64_t levels_;
  std::unique_ptr<MediumProduct> product_;
  std::vector<Parameter*> weights_;
  LayerGroup group_;
};

}  // namespace

std::unique_ptr<Projections> make_spiking_projections(Build build, const ProjectionSpec& spec,
                                                      const SpikingParameters& parameters,
                                                      const std::string& kind) {
  if (!even_biases(spec)) return nullptr;
  return std::make_unique<SpikingProjections>(build, spec, parameters, kind);
}

}  // namespace refract
