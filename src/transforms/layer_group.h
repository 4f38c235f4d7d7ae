// What a group of linear layers that is computed as one product shares with every other such group.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/slots.h"

namespace refract {

// Whether all members have a bias, or none has.
bool even_biases(const ProjectionSpec& spec);

// Declares the members' weights, which lie side by side in the arena.
std::vector<Parameter*> declare_weights(Build build, const std::vector<LinearSpec>& members);

// The members of a group, each as a layer that may be seen alone, and their biases side by side.
class LayerGroup {
 public:
  // Member m, whose outputs begin at column `first` of the group's.
  using MakeMember = std::function<std::unique_ptr<LinearLayer>(size_t m, int64_t first)>;

  // Enters the members in build.transformed under the name `kind` and declares their biases. All of
  // them have one, or none has.
  LayerGroup(Build build, const ProjectionSpec& spec, const std::string& kind,
             const MakeMember& make_member);

  // [sum of out_features]; undefined where there is none.
  at::Tensor bias() const;

 private:
  ParameterArena& arena_;
  std::vector<std::unique_ptr<LinearLayer>> members_;
  std::vector<Parameter*> biases_;
};

}  // namespace refract
