// Spiking layers: operands in levels with learned scales (LSQ), which ternary neurons give as
// spikes over time steps. transforms/spiking/ says what a neuron, a product and a step are.
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "transforms/kind.h"
#include "transforms/media/medium_layers.h"
#include "transforms/media/medium_product.h"
#include "transforms/spiking/spiking_product.h"
#include "transforms/spiking/spiking_projections.h"

namespace refract {
namespace {

constexpr double kWeightBits = 16;

class Spiking : public Kind, public GivesProduct {
 public:
  void describe(Fields& fields) override {
    fields.add("levels", parameters_.levels, "levels of an operand; half of them are below 0",
               {.min = 4, .max = 256});
    fields.add("mode", mode_,
               "outside training: compute with the levels, or run each product on spikes",
               {"quantized", "spikes"});
    fields.add("time_steps", parameters_.time_steps, "of a product on spikes", {.min = 1});
  }
  bool transforms_linear() const override { return true; }
  bool transforms_attention() const override { return true; }
  bool straight_through() const override { return true; }

  std::unique_ptr<MediumProduct> product(Build build, const LinearSpec& spec) const override {
    return make_spiking_linear(build, spec.name, parameters());
  }
  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return std::make_unique<MediumLinear>(build, spec, product(build, spec));
  }
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return make_spiking_projections(build, spec, parameters(), name());
  }
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override {
    auto scores = make_spiking_scores(build, spec.name, parameters(), spec.window);
    return make_medium_attention(spec, std::move(scores),
                                 make_spiking_values(build, spec.name, parameters(), spec.window));
  }

  // Levels are digital numbers of log2(levels) bits. Spikes add: each a row of the other operand,
  // and in attention those of either operand.
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    const double operands = product.head_dim > 0 ? 2 : 1;
    if (mode_ == "spikes") {
      return {product.multiplications * operands * constants.spikes_per_value * constants.spike_add,
              0};
    }
    const double bits = std::log2(static_cast<double>(parameters_.levels));
    return {
        digital_energy(product.multiplications, bits, operands > 1 ? bits : kWeightBits, constants),
        0};
  }

 private:
  SpikingParameters parameters() const {
    SpikingParameters p = parameters_;
    p.spikes = mode_ == "spikes";
    return p;
  }

  SpikingParameters parameters_;
  std::string mode_ = "quantized";
};

}  // namespace

REFRACT_KIND(spiking, Spiking, "levels with learned scales, which ternary neurons give as spikes");

}  // namespace refract
