#include "transforms/structured/joint_projections.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "core/error.h"
#include "transforms/inner_kind.h"
#include "transforms/layer_group.h"

namespace refract {
namespace {

// The layer of both, and the dense weights that it waits for.
class JointLayer {
 public:
  JointLayer(std::unique_ptr<LinearLayer> layer, const ProjectionSpec& spec)
      : layer_(std::move(layer)), pending_(spec.members.size()) {
    for (const LinearSpec& member : spec.members) {
      in_features_ = member.in_features;
      out_features_ += member.out_features;
    }
  }

  LinearLayer& operator*() { return *layer_; }

  double take_over(size_t member, const at::Tensor& weight) {
    pending_[member] = weight;
    const auto given = [](const at::Tensor& t) { return t.defined(); };
    if (!std::ranges::all_of(pending_, given)) return 0;
    const at::Tensor both = at::cat(pending_);
    for (at::Tensor& waiting : pending_) waiting = at::Tensor();
    return layer_->take_over(both);
  }

  // The member's part of a count of the whole layer, such that the parts add up.
  int64_t part_of(int64_t count, size_t member) const {
    const auto m = static_cast<int64_t>(member), members = static_cast<int64_t>(pending_.size());
    return count * (m + 1) / members - count * m / members;
  }
  int64_t multiplications() const {
    return multiplications_of(*layer_, in_features_, out_features_);
  }
  int64_t guide_multiplications() const { return layer_->guide_multiplications(); }

 private:
  std::unique_ptr<LinearLayer> layer_;
  std::vector<at::Tensor> pending_;
  int64_t in_features_ = 0, out_features_ = 0;
};

class JointMember : public LinearLayer {
 public:
  JointMember(JointLayer& both, size_t member, int64_t first, int64_t count)
      : both_(both), member_(member), first_(first), count_(count) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return (*both_).forward(context, x).narrow(-1, first_, count_);
  }
  void initialize(uint64_t seed) override {
    if (member_ == 0) (*both_).initialize(seed);
  }
  double take_over(const at::Tensor& weight) override { return both_.take_over(member_, weight); }
  at::Tensor merged() const override {
    const at::Tensor whole = (*both_).merged();
    return whole.defined() ? whole.narrow(0, first_, count_) : whole;
  }
  bool computes_merged() const override { return (*both_).computes_merged(); }
  int64_t multiplications() const override {
    return both_.part_of(both_.multiplications(), member_);
  }
  int64_t guide_multiplications() const override {
    return both_.part_of(both_.guide_multiplications(), member_);
  }

 private:
  JointLayer& both_;
  size_t member_;
  int64_t first_, count_;  // of the joint outputs
};

class JointProjections : public Projections {
 public:
  JointProjections(Build build, const ProjectionSpec& spec, std::unique_ptr<LinearLayer> layer,
                   const std::string& kind)
      : both_(std::move(layer), spec),
        group_(build, spec, kind,
               [&](size_t m, int64_t first) {
                 return std::make_unique<JointMember>(both_, m, first,
                                                      spec.members[m].out_features);
               }),
        activation_(spec.activation) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return apply_epilogue((*both_).forward(context, x), group_.bias(), activation_);
  }

 private:
  JointLayer both_;
  LayerGroup group_;
  Activation activation_;
};

}  // namespace

LinearSpec joint_spec(const ProjectionSpec& spec) {
  LinearSpec joint = spec.members[0];
  joint.out_features = 0;
  joint.bias = false;
  for (const LinearSpec& member : spec.members) joint.out_features += member.out_features;
  return joint;
}

std::unique_ptr<Projections> make_joint_projections(Build build, const ProjectionSpec& spec,
                                                    std::unique_ptr<LinearLayer> layer,
                                                    const std::string& kind) {
  if (!even_biases(spec)) {
    fail_usage("'{}': joint = true takes a bias for gate and up or for neither",
               spec.members[0].name);
  }
  return std::make_unique<JointProjections>(build, spec, std::move(layer), kind);
}

}  // namespace refract
