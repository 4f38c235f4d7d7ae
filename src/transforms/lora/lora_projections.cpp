#include "transforms/lora/lora_projections.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "model/dense.h"
#include "ops/dense/linear/linear.h"
#include "transforms/inner_kind.h"

namespace refract {
namespace {

std::optional<at::Tensor> maybe(const at::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}

bool even_biases(const ProjectionSpec& spec) {
  const auto has_bias = [](const LinearSpec& member) { return member.bias; };
  return std::ranges::all_of(spec.members, has_bias) ||
         std::ranges::none_of(spec.members, has_bias);
}

// A member of a dense group, seen alone.
class DenseMember : public LinearLayer {
 public:
  DenseMember(ParameterArena& arena, Parameter* weight) : arena_(arena), weight_(weight) {}
  at::Tensor forward(const ForwardContext& /*context*/, const at::Tensor& x) override {
    return fused_linear(x, arena_.leaf(weight_));
  }
  double take_over(const at::Tensor& weight) override {
    arena_.value(weight_).copy_(weight);
    return 0;
  }
  at::Tensor merged() const override { return arena_.value(weight_); }
  bool computes_merged() const override { return true; }

 private:
  ParameterArena& arena_;
  Parameter* weight_;
};

// The frozen layers of a group: together, and each alone.
struct FrozenGroup {
  std::unique_ptr<Projections> together;
  std::vector<LinearLayer*> members;
  std::vector<std::unique_ptr<LinearLayer>> owned;  // of `members`, what `together` doesn't own
  bool keeps_no_output = false;                     // for a gradient, so that it may be overwritten
};

FrozenGroup dense_group(Build build, const ProjectionSpec& spec) {
  FrozenGroup frozen;
  frozen.together = std::make_unique<DenseProjections>(build, spec);
  frozen.keeps_no_output = true;
  for (const LinearSpec& member : spec.members) {
    frozen.owned.push_back(
        std::make_unique<DenseMember>(build.arena, build.arena.find(weight_spec(member).name)));
    frozen.members.push_back(frozen.owned.back().get());
  }
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
      : frozen_(frozen_group(build, without_activation(spec), over)),
        adapters_(build, spec.members, settings),
        activation_(spec.activation) {
    for (size_t m = 0; m < spec.members.size(); ++m) {
      members_.push_back(std::make_unique<BesideMember>(
          spec.members[m], *frozen_.members[m], adapters_, m, build.arena, settings.scale()));
      enter(build, spec.members[m], kind, members_.back().get());
    }
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const at::Tensor y = frozen_.together->forward(context, x);
    return apply_epilogue(adapters_.add(context, y, x, frozen_.keeps_no_output), {}, activation_);
  }

 private:
  static ProjectionSpec without_activation(ProjectionSpec spec) {
    spec.activation = Activation::kNone;
    return spec;
  }

  FrozenGroup frozen_;
  AdapterGroup adapters_;
  Activation activation_;
  std::vector<std::unique_ptr<BesideMember>> members_;
};

class MergedProjections;

// A member of a merged dense group, seen alone.
class MergedMember : public LinearLayer, public MergedAdapterLayer {
 public:
  MergedMember(MergedProjections& group, size_t member, int64_t first, int64_t count)
      : group_(group), member_(member), first_(first), count_(count) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;
  void initialize(uint64_t seed) override;
  double take_over(const at::Tensor& weight) override;
  at::Tensor merged() const override;
  bool computes_merged() const override { return true; }
  int64_t adapter_gradient_multiplications() const override;

 private:
  MergedProjections& group_;
  size_t member_;
  int64_t first_, count_;  // of the group's columns
};

class MergedProjections : public Projections {
 public:
  MergedProjections(Build build, const ProjectionSpec& spec, const LoraSettings& settings,
                    const std::string& kind)
      : arena_(build.arena),
        weights_(declare_weights(build, spec)),
        adapters_(build, spec.members, settings),
        activation_(spec.activation) {
    std::vector<ParameterSpec> biases;
    int64_t first = 0;
    for (size_t m = 0; m < spec.members.size(); ++m) {
      const LinearSpec& member = spec.members[m];
      if (member.bias) biases.push_back(bias_spec(member));
      members_.push_back(std::make_unique<MergedMember>(*this, m, first, member.out_features));
      enter(build, member, kind, members_.back().get());
      first += member.out_features;
    }
    biases_ = build.arena.declare_group(biases);
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const at::Tensor bias = biases_.empty() ? at::Tensor() : arena_.joint_leaf(biases_);
    return apply_epilogue(product(context, x, bias), {}, activation_);
  }

  at::Tensor product(const ForwardContext& context, const at::Tensor& x, const at::Tensor& bias) {
    const at::Tensor weight = adapters_.merge(context, arena_.joint_leaf(weights_));
    return adapters_.attach(fused_linear(x, weight, maybe(bias)), x);
  }
  at::Tensor weight(size_t member) const { return arena_.value(weights_[member]); }
  AdapterGroup& adapters() { return adapters_; }

 private:
  static std::vector<Parameter*> declare_weights(Build build, const ProjectionSpec& spec) {
    std::vector<ParameterSpec> weights;
    for (const LinearSpec& member : spec.members) weights.push_back(weight_spec(member));
    return build.arena.declare_group(weights);
  }

  ParameterArena& arena_;
  std::vector<Parameter*> weights_, biases_;
  AdapterGroup adapters_;
  Activation activation_;
  std::vector<std::unique_ptr<MergedMember>> members_;
};

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
  return 2 * group_.adapters().multiplications(member_);
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
                                              const LoraSettings& settings,
                                              const std::string& kind) {
  if (!even_biases(spec)) return nullptr;
  return std::make_unique<MergedProjections>(build, spec, settings, kind);
}

std::unique_ptr<LinearLayer> lone_member(std::unique_ptr<Projections> group,
                                         const std::vector<TransformedLayer>& members) {
  return std::make_unique<LoneMember>(std::move(group), *members.at(0).layer);
}

}  // namespace refract
