#include "transforms/lora/lora_projections.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "model/dense.h"
#include "ops/dense/linear/linear.h"
#include "transforms/inner_kind.h"
#include "transforms/layer_group.h"

namespace refract {
namespace {

std::optional<at::Tensor> maybe(const at::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}

// The frozen layers of a group: together, and each alone.
struct FrozenGroup {
  std::unique_ptr<Projections> together;
  std::vector<LinearLayer*> members;
  std::vector<std::unique_ptr<LinearLayer>> owned;  // of `members`, what `together` doesn't own
  bool keeps_no_output = false;                     // for a gradient, so that it may be overwritten
  std::vector<Parameter*> weights, biases;          // where x gets the dense product's gradient
};

void find_dense_parameters(Build build, const ProjectionSpec& spec, FrozenGroup& frozen) {
  for (const LinearSpec& member : spec.members) {
    frozen.weights.push_back(build.arena.find(weight_spec(member).name));
    if (member.bias) frozen.biases.push_back(build.arena.find(bias_spec(member).name));
  }
}

FrozenGroup dense_group(Build build, const ProjectionSpec& spec) {
  FrozenGroup frozen;
  frozen.together = std::make_unique<DenseProjections>(build, spec);
  frozen.keeps_no_output = true;
  for (const LinearSpec& member : spec.members) {
    frozen.owned.push_back(
        std::make_unique<DenseLinear>(build, build.arena.find(weight_spec(member).name)));
    frozen.members.push_back(frozen.owned.back().get());
  }
  find_dense_parameters(build, spec, frozen);
  return frozen;
}

FrozenGroup composed_group(Build build, const ProjectionSpec& spec, const Kind* over) {
  FrozenGroup frozen;
  std::vector<std::unique_ptr<LinearLayer>> layers;
  for (const LinearSpec& member : spec.members) {
    layers.push_back(over ? over->linear(build, member)
                          : std::make_unique<DenseLinear>(build, member));
    frozen.members.push_back(layers.back().get());
  }
  frozen.together = std::make_unique<ComposedProjections>(build, spec, std::move(layers));
  return frozen;
}

FrozenGroup frozen_group(Build build, const ProjectionSpec& spec, const Kind* over) {
  if (!over)
    return even_biases(spec) ? dense_group(build, spec) : composed_group(build, spec, over);
  std::vector<TransformedLayer> entered;  // under the inner kind's name, which nobody shall see
  FrozenGroup frozen;
  frozen.together = over->projections({build.arena, build.buffers, entered}, spec);
  if (!frozen.together) return composed_group(build, spec, over);
  frozen.keeps_no_output = dynamic_cast<const MergesAdapters*>(over) != nullptr;
  for (const TransformedLayer& member : entered) frozen.members.push_back(member.layer);
  if (frozen.keeps_no_output && over->straight_through())
    find_dense_parameters(build, spec, frozen);
  return frozen;
}

// A layer with its adapter beside it, seen alone.
class BesideMember : public LinearLayer {
 public:
  BesideMember(const LinearSpec& spec, LinearLayer& base, AdapterGroup& adapters, size_t member,
               ParameterArena& arena, double scale)
      : spec_(spec),
        base_(base),
        adapters_(adapters),
        member_(member),
        arena_(arena),
        scale_(scale) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const at::Tensor a = arena_.leaf(arena_.find(spec_.name + ".lora_A.weight"));
    const at::Tensor b = arena_.leaf(arena_.find(spec_.name + ".lora_B.weight"));
    return base_.forward(context, x).add(fused_linear(fused_linear(x, a), b), scale_);
  }
  void initialize(uint64_t seed) override {
    base_.initialize(seed);
    adapters_.initialize(member_, seed);
  }
  double take_over(const at::Tensor& weight) override { return base_.take_over(weight); }
  bool computes_merged() const override { return base_.computes_merged(); }
  at::Tensor merged() const override {
    const at::Tensor below = base_.merged();
    return below.defined() ? below.add(adapters_.delta(member_)) : below;
  }
  int64_t multiplications() const override {
    return multiplications_of(base_, spec_.in_features, spec_.out_features) +
           adapters_.multiplications(member_);
  }

 private:
  LinearSpec spec_;
  LinearLayer& base_;
  AdapterGroup& adapters_;
  size_t member_;
  ParameterArena& arena_;
  double scale_;
};

class BesideProjections : public Projections {
 public:
  BesideProjections(Build build, const ProjectionSpec& spec, const LoraSettings& settings,
                    const Kind* over, const std::string& kind)
      : arena_(build.arena),
        frozen_(frozen_group(build, without_activation(spec), over)),
        adapters_(build, spec.members, settings),
        activation_(spec.activation) {
    for (size_t m = 0; m < spec.members.size(); ++m) {
      members_.push_back(std::make_unique<BesideMember>(
          spec.members[m], *frozen_.members[m], adapters_, m, build.arena, settings.scale()));
      enter(build, spec.members[m], kind, members_.back().get());
    }
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return apply_epilogue(product(context, x), {}, activation_);
  }

 private:
  at::Tensor product(const ForwardContext& context, const at::Tensor& x) {
    if (!at::GradMode::is_enabled() || adapters_.drops(context) || !gives_dense_gradient()) {
      const at::Tensor y = frozen_.together->forward(context, x);
      return adapters_.add(context, y, x, frozen_.keeps_no_output);
    }
    at::Tensor y;
    {
      const at::NoGradGuard no_grad;
      y = frozen_.together->forward(context, x);
    }
    return adapters_.add_to_unrecorded(context, y, x, arena_.joint_leaf(frozen_.weights));
  }
  // Whether the frozen layers pass on the dense product's gradient and take none themselves: a
  // recipe can have any parameter trained.
  bool gives_dense_gradient() const {
    const auto trained = [](const Parameter* parameter) { return parameter->trainable; };
    return !frozen_.weights.empty() && std::ranges::none_of(frozen_.weights, trained) &&
           std::ranges::none_of(frozen_.biases, trained);
  }

  static ProjectionSpec without_activation(ProjectionSpec spec) {
    spec.activation = Activation::kNone;
    return spec;
  }

  ParameterArena& arena_;
  FrozenGroup frozen_;
  AdapterGroup adapters_;
  Activation activation_;
  std::vector<std::unique_ptr<BesideMember>> members_;
};

class MergedProjections;

// A member of a merged group, seen alone.
class MergedMember : public LinearLayer, public MergedAdapterLayer {
 public:
  MergedMember(MergedProjections& group, size_t member, int64_t first, const LinearSpec& spec)
      : group_(group),
        member_(member),
        first_(first),
        count_(spec.out_features),
        dense_multiplications_(spec.in_features * spec.out_features) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;
  void initialize(uint64_t seed) override;
  double take_over(const at::Tensor& weight) override;
  at::Tensor merged() const override;
  bool computes_merged() const override;
  int64_t adapter_gradient_multiplications() const override;

 private:
  MergedProjections& group_;
  size_t member_;
  int64_t first_, count_;  // of the group's columns
  int64_t dense_multiplications_;
};

class MergedProjections : public Projections {
 public:
  MergedProjections(Build build, const ProjectionSpec& spec, const LoraSettings& settings,
                    const std::string& kind, const GivesProduct* medium, bool straight_through)
      : arena_(build.arena),
        straight_through_(straight_through),
        medium_(medium ? medium->product(build, spec.members.front()) : nullptr),
        weights_(declare_weights(build, spec.members)),
        adapters_(build, spec.members, settings),
        group_(build, spec, kind,
               [&](size_t m, int64_t first) {
                 return std::make_unique<MergedMember>(*this, m, first, spec.members[m]);
               }),
        activation_(spec.activation) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return apply_epilogue(product(context, x, group_.bias()), {}, activation_);
  }

  at::Tensor product(const ForwardContext& context, const at::Tensor& x, const at::Tensor& bias) {
    const at::Tensor frozen = arena_.joint_leaf(weights_);
    if (!medium_) {
      const at::Tensor merged = adapters_.merge(context, frozen);
      return adapters_.attach(fused_linear(x, merged, maybe(bias)), x);
    }
    const at::Tensor y = medium_product(context, x, frozen);
    return bias.defined() ? y.add(bias) : y;
  }
  bool is_dense() const { return !medium_; }
  at::Tensor weight(size_t member) const { return arena_.value(weights_[member]); }
  AdapterGroup& adapters() { return adapters_; }
  // Whether a gradient of the merged weight is made on the way to those of A and B.
  bool has_weight_gradient() const { return !straight_through_; }

 private:
  at::Tensor medium_product(const ForwardContext& context, const at::Tensor& x,
                            const at::Tensor& frozen) {
    if (has_weight_gradient())
      return medium_->multiply(context, x, adapters_.merge_recorded(context, frozen));
    return adapters_.attach(medium_->multiply(context, x, adapters_.merge(context, frozen)), x);
  }

  ParameterArena& arena_;
  bool straight_through_;
  std::unique_ptr<MediumProduct> medium_;  // null: none
  std::vector<Parameter*> weights_;
  AdapterGroup adapters_;
  LayerGroup group_;
  Activation activation_;
};

bool MergedMember::computes_merged() const { return group_.is_dense(); }
at::Tensor MergedMember::forward(const ForwardContext& context, const at::Tensor& x) {
  return group_.product(context, x, {}).narrow(-1, first_, count_);
}
void MergedMember::initialize(uint64_t seed) { group_.adapters().initialize(member_, seed); }
double MergedMember::take_over(const at::Tensor& weight) {
  group_.weight(member_).copy_(weight);
  return 0;
}
at::Tensor MergedMember::merged() const {
  return group_.weight(member_).add(group_.adapters().delta(member_));
}
int64_t MergedMember::adapter_gradient_multiplications() const {
  return group_.has_weight_gradient() ? dense_multiplications_
                                      : 2 * group_.adapters().multiplications(member_);
}

// It owns the group that it is a member of.
class LoneMember : public LinearLayer, public MergedAdapterLayer {
 public:
  LoneMember(std::unique_ptr<Projections> group, LinearLayer& member)
      : group_(std::move(group)), member_(member) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return group_->forward(context, x);
  }
  void initialize(uint64_t seed) override { member_.initialize(seed); }
  double take_over(const at::Tensor& weight) override { return member_.take_over(weight); }
  at::Tensor merged() const override { return member_.merged(); }
  bool computes_merged() const override { return member_.computes_merged(); }
  int64_t multiplications() const override { return member_.multiplications(); }
  int64_t adapter_gradient_multiplications() const override {
    const auto* merged = dynamic_cast<const MergedAdapterLayer*>(&member_);
    return merged ? merged->adapter_gradient_multiplications() : 0;
  }

 private:
  std::unique_ptr<Projections> group_;
  LinearLayer& member_;
};

}  // namespace

std::unique_ptr<Projections> make_lora_beside(Build build, const ProjectionSpec& spec,
                                              const LoraSettings& settings, const Kind* over,
                                              const std::string& kind) {
  return std::make_unique<BesideProjections>(build, spec, settings, over, kind);
}

std::unique_ptr<Projections> make_lora_merged(Build build, const ProjectionSpec& spec,
                                              const LoraSettings& settings, const std::string& kind,
                                              const GivesProduct* medium, bool straight_through) {
  if (!even_biases(spec)) return nullptr;
  return std::make_unique<MergedProjections>(build, spec, settings, kind, medium, straight_through);
}

std::unique_ptr<LinearLayer> lone_member(std::unique_ptr<Projections> group,
                                         const std::vector<TransformedLayer>& members) {
  return std::make_unique<LoneMember>(std::move(group), *members.at(0).layer);
}

}  // namespace refract
