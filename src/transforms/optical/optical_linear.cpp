#include "transforms/optical/optical_linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <vector>

#include "ops/optical/linear/linear.h"
#include "transforms/layer_group.h"
#include "transforms/media/medium_layers.h"
#include "transforms/media/observer.h"
#include "transforms/optical/optical_medium.h"

namespace refract {
namespace {

using Buffer = BufferStore::Buffer;

// Optical layers that share their input: the input is quantized once, and one GEMM multiplies it by
// their adjacent weights, or by what merged adapters make of those.
class OpticalProduct {
 public:
  OpticalProduct(Build build, const OpticalParameters& parameters,
                 const std::vector<LinearSpec>& members, const LoraSettings* adapters = nullptr)
      : parameters_(parameters), arena_(build.arena), weights_(declare_weights(build, members)) {
    if (adapters) adapters_.emplace(build, members, *adapters);
    x_range_ = declare_range(build, members.front().name + ".x_range");
    for (const LinearSpec& member : members) {
      w_ranges_.push_back(declare_range(build, member.name + ".w_range"));
      out_ranges_.push_back(declare_range(build, member.name + ".out_range"));
      splits_.push_back(member.out_features);
      names_.push_back(member.name);
    }
  }

  // x [..., in] -> [..., sum of out], with the members' biases side by side or undefined.
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x, const at::Tensor& bias) {
    const at::Tensor own = arena_.joint_leaf(weights_);
    if (!adapters_) return product(context, x, own, bias);
    return adapters_->attach(product(context, x, adapters_->merge(context, own), bias), x);
  }

  at::Tensor weight(size_t member) const { return arena_.value(weights_[member]); }
  // What the member multiplies by, before it is quantized.
  at::Tensor merged(size_t member) const {
    return adapters_ ? weight(member).add(adapters_->delta(member)) : weight(member);
  }
  std::optional<AdapterGroup>& adapters() { return adapters_; }

 private:
  at::Tensor product(const ForwardContext& context, const at::Tensor& x, const at::Tensor& weight,
                     const at::Tensor& bias) {
    const std::optional<at::Tensor> maybe = bias.defined() ? std::optional(bias) : std::nullopt;
    if (parameters_.q_bypass) return at::linear(x, weight, maybe);
    if (medium_observer()) return observed(x, weight, bias);
    OpticalSettings settings = optical_settings(parameters_, context, names_);
    settings.ranges_set = ranges_set_;
    const bool fresh = refresh(context, weight, settings);
    const at::Tensor y =
        optical_linear(x, weight, maybe, x_range_->tensor, tensors(w_ranges_), tensors(out_ranges_),
                       splits_, encoded_.list(), fresh, settings);
    ranges_set_ |= context.training;
    return y;
  }

  // The product of a forward pass with an observer.
  at::Tensor observed(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const {
    const at::Tensor seen = observed_input(parameters_, names_[0], x, x_range_->tensor);
    std::vector<at::Tensor> outputs;
    int64_t begin = 0;
    for (size_t m = 0; m < splits_.size(); ++m) {
      outputs.push_back(
          observed_product(parameters_, names_[m], seen, weight.narrow(0, begin, splits_[m]),
                           {x_range_->tensor, w_ranges_[m]->tensor, out_ranges_[m]->tensor}));
      begin += splits_[m];
    }
    const at::Tensor y = at::cat(outputs, -1);
    return bias.defined() ? y.add(bias) : y;
  }

  static std::vector<at::Tensor> tensors(const std::vector<Buffer*>& buffers) {
    std::vector<at::Tensor> all;
    for (const Buffer* buffer : buffers) all.push_back(buffer->tensor);
    return all;
  }

  // Quantizes the weight where it changed: once per optimizer step, not per micro-batch. What an
  // evaluation quantized is not good for training, whose first call of a step moves the range.
  bool refresh(const ForwardContext& context, const at::Tensor& weight,
               const OpticalSettings& settings) {
    const bool stale = context.weights_changed || !encoded_.used.defined() ||
                       (context.training && !encoded_in_training_);
    if (!stale) return false;
    const at::NoGradGuard no_grad;
    encoded_ = optical_encode(weight.detach(), tensors(w_ranges_), splits_, settings);
    encoded_in_training_ = context.training;
    return true;
  }

  OpticalParameters parameters_;
  ParameterArena& arena_;
  std::vector<Parameter*> weights_;
  std::optional<AdapterGroup> adapters_;
  Buffer* x_range_;
  std::vector<Buffer*> w_ranges_, out_ranges_;
  std::vector<int64_t> splits_;
  std::vector<std::string> names_;
  OpticalOperand encoded_;  // the weight
  bool encoded_in_training_ = false;
  bool ranges_set_ = false;  // by a training call of ours, so known without asking the device
};

class OpticalLinear : public LinearLayer {
 public:
  OpticalLinear(Build build, const OpticalParameters& parameters, const LinearSpec& spec)
      : product_(build, parameters, {spec}) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return product_.forward(context, x, {});
  }
  double take_over(const at::Tensor& weight) override {
    product_.weight(0).copy_(weight);
    return 0;
  }
  at::Tensor merged() const override { return product_.weight(0); }

 private:
  OpticalProduct product_;
};

// A member of a group, seen alone.
class OpticalMember : public LinearLayer, public MergedAdapterLayer {
 public:
  OpticalMember(OpticalProduct& product, size_t member, int64_t first, int64_t count)
      : product_(product), member_(member), first_(first), count_(count) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return product_.forward(context, x, {}).narrow(-1, first_, count_);
  }
  void initialize(uint64_t seed) override {
    if (product_.adapters()) product_.adapters()->initialize(member_, seed);
  }
  double take_over(const at::Tensor& weight) override {
    product_.weight(member_).copy_(weight);
    return 0;
  }
  at::Tensor merged() const override { return product_.merged(member_); }
  int64_t adapter_gradient_multiplications() const override {
    return product_.adapters() ? 2 * product_.adapters()->multiplications(member_) : 0;
  }

 private:
  OpticalProduct& product_;
  size_t member_;
  int64_t first_, count_;  // of the product's columns
};

class OpticalProjections : public Projections {
 public:
  OpticalProjections(Build build, const OpticalParameters& parameters, const ProjectionSpec& spec,
                     const std::string& kind, const LoraSettings* adapters)
      : product_(build, parameters, spec.members, adapters),
        group_(build, spec, kind,
               [&](size_t m, int64_t first) {
                 return std::make_unique<OpticalMember>(product_, m, first,
                                                        spec.members[m].out_features);
               }),
        activation_(spec.activation) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return apply_epilogue(product_.forward(context, x, group_.bias()), {}, activation_);
  }

 private:
  OpticalProduct product_;
  LayerGroup group_;
  Activation activation_;
};

}  // namespace

std::unique_ptr<LinearLayer> make_optical_linear(Build build, const LinearSpec& spec,
                                                 const OpticalParameters& parameters) {
  if (parameters.granular()) {
    return std::make_unique<MediumLinear>(build, spec,
                                          make_optical_medium(build, spec, parameters));
  }
  return std::make_unique<OpticalLinear>(build, parameters, spec);
}

std::unique_ptr<Projections> make_optical_projections(Build build, const ProjectionSpec& spec,
                                                      const OpticalParameters& parameters,
                                                      const std::string& kind,
                                                      const LoraSettings* adapters) {
  if (!even_biases(spec) || spec.members.size() > optical_op::kMaxMembers || parameters.granular())
    return nullptr;
  return std::make_unique<OpticalProjections>(build, parameters, spec, kind, adapters);
}

}  // namespace refract
