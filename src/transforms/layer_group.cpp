#include "transforms/layer_group.h"

#include <algorithm>
#include <stdexcept>

#include "model/dense.h"
#include "transforms/kind.h"

namespace refract {

bool even_biases(const ProjectionSpec& spec) {
  const auto has_bias = [](const LinearSpec& member) { return member.bias; };
  return std::ranges::all_of(spec.members, has_bias) ||
         std::ranges::none_of(spec.members, has_bias);
}

std::vector<Parameter*> declare_weights(Build build, const std::vector<LinearSpec>& members) {
  std::vector<ParameterSpec> weights;
  for (const LinearSpec& member : members) weights.push_back(weight_spec(member));
  return build.arena.declare_group(weights);
}

LayerGroup::LayerGroup(Build build, const ProjectionSpec& spec, const std::string& kind,
                       const MakeMember& make_member)
    : arena_(build.arena) {
  if (!even_biases(spec)) throw std::logic_error("a group has biases for all members or for none");
  std::vector<ParameterSpec> biases;
  int64_t first = 0;
  for (size_t m = 0; m < spec.members.size(); ++m) {
    const LinearSpec& member = spec.members[m];
    if (member.bias) biases.push_back(bias_spec(member));
    members_.push_back(make_member(m, first));
    enter(build, member, kind, members_.back().get());
    first += member.out_features;
  }
  biases_ = arena_.declare_group(biases);
}

at::Tensor LayerGroup::bias() const {
  return biases_.empty() ? at::Tensor() : arena_.joint_leaf(biases_);
}

}  // namespace refract
