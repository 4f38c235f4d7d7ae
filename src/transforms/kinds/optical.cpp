// Simulated optical compute (Anderson et al., "Optical Transformers", arXiv 2302.10360), for linear
// layers and for attention; its layers are in transforms/optical/, its mathematics in ops/optical/.
#include "core/error.h"
#include "transforms/kind.h"
#include "transforms/lora/lora_projections.h"
#include "transforms/media/medium_product.h"
#include "transforms/optical/optical_attention.h"
#include "transforms/optical/optical_linear.h"
#include "transforms/optical/optical_medium.h"
#include "transforms/optical/optical_parameters.h"

namespace refract {
namespace {

class Optical : public Kind, public MergesAdapters, public GivesProduct {
 public:
  void describe(Fields& fields) override {
    OpticalParameters& p = parameters_;
    fields.add("q_levels", p.q_levels, "levels of every quantizer", {.min = 2, .max = 65536});
    fields.add("q_lut_min", p.q_lut_min,
               "darkest value of the second operand, as a share of its range; 0: none",
               {.min = 0, .max = 0.5});
    fields.add("q_quantiles", p.q_quantiles,
               "[low, high]: ranges are these quantiles; [] : minimum and maximum");
    fields.add("q_smooth_factor", p.q_smooth_factor,
               "s of r <- s r + (1 - s) new, by which ranges move", {.min = 0, .max = 1});
    fields.add("q_init_seed", p.q_init_seed, "another seed draws other noise");
    fields.add("q_bypass", p.q_bypass, "compute densely");
    fields.add("q_x_per", p.q_x_per,
               "whose range quantizes an input: one of the whole tensor, or each token's own",
               {"tensor", "token"});
    fields.add("q_w_per", p.q_w_per,
               "whose range quantizes a weight: one of the whole tensor, or each output channel's",
               {"tensor", "channel"});
    fields.add("q_out_per", p.q_out_per,
               "whose range quantizes an output: one of the whole tensor, or each token's own",
               {"tensor", "token"});
    fields.add("q_learn", p.q_learn,
               "multiply every range by exp(p), with a parameter p for each of its ends");
    fields.add("gradient", p.gradient,
               "of the products: that of the dense layer, or that of the quantized operands, "
               "straight through each quantizer; ranges are learned with the latter",
               {"dense", "operands"});
    fields.add("noise", p.noise, "noise of half a level each way on every output");
    fields.add(
        "compat", p.compat,
        "reproduce the reference's defects, of its program for fine-tuning or for pretraining",
        {"none", "mase-finetune", "mase-pretrain"});
    fields.add("compat_shared_noise", p.compat_shared_noise,
               "as the reference: one noise number for every element of every call");
    fields.add("compat_clipped_range", p.compat_clipped_range,
               "as the reference: output ranges learned from clipped outputs");
    fields.add("compat_scaled_qk_range", p.compat_scaled_qk_range,
               "as the reference: the range of QK from scaled scores, used on unscaled ones");
  }

  void check(const std::string& where) const override {
    const std::vector<double>& q = parameters_.q_quantiles;
    if (!q.empty() && !(q.size() == 2 && q[0] >= 0 && q[0] < q[1] && q[1] <= 1)) {
      fail_usage("{}: q_quantiles = [{}] must be two numbers that rise within [0, 1], or empty",
                 where, fmt::join(q, ", "));
    }
    if (parameters_.granular() && !q.empty()) {
      fail_usage(
          "{}: q_quantiles are of a whole tensor; leave them out, or q_*_per, q_learn and gradient",
          where);
    }
    if (parameters_.granular() && has_compat()) {
      fail_usage(
          "{}: the reference has one range per tensor and the dense gradient; leave out compat*, "
          "or q_*_per, q_learn and gradient",
          where);
    }
    if (parameters_.shared_noise() && !parameters_.noise) {
      fail_usage("{}: noise = false contradicts the reference's shared noise; leave one out",
                 where);
    }
  }

  bool transforms_linear() const override { return true; }
  bool transforms_attention() const override { return true; }
  bool straight_through() const override { return !parameters_.by_operands(); }

  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return make_optical_linear(build, spec, parameters_);
  }
  std::unique_ptr<MediumProduct> product(Build build, const LinearSpec& spec) const override {
    return make_optical_medium(build, spec, parameters_);
  }
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return make_optical_projections(build, spec, parameters_, name());
  }
  bool merges() const override { return !parameters_.granular(); }
  std::unique_ptr<Projections> merged_projections(Build build, const ProjectionSpec& spec,
                                                  const LoraSettings& settings,
                                                  const std::string& kind) const override {
    return make_optical_projections(build, spec, parameters_, kind, &settings);
  }
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override {
    return make_optical_attention(build, spec, parameters_);
  }
  // A row with a range of its own is scaled digitally, element by element, as is an output whose
  // weight has one.
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    const OpticalParameters& p = parameters_;
    if (p.q_bypass) return Kind::energy(product, constants);
    double scaled = 0;
    if (p.q_x_per != "tensor") scaled += static_cast<double>(product.inputs);
    if (p.q_out_per != "tensor" || p.q_w_per != "tensor")
      scaled += static_cast<double>(product.outputs);
    const double beside = product.multiplications - product.dense() + product.times * scaled;
    return {optical_energy(product, p.q_levels, constants), digital_energy(beside, constants)};
  }

 private:
  bool has_compat() const {
    return parameters_.shared_noise() || parameters_.clipped_range() ||
           parameters_.scaled_qk_range();
  }

  OpticalParameters parameters_;
};

}  // namespace

REFRACT_KIND(optical, Optical,
             "simulated optical compute: quantized operands, noisy quantized outputs");

}  // namespace refract
