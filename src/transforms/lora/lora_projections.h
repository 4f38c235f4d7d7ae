// LoRA's groups: adapters beside the product of frozen layers of any kind, or merged into the
// weight of those that multiply by one.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "model/slots.h"
#include "transforms/kind.h"
#include "transforms/lora/adapter_group.h"
#include "transforms/media/medium_product.h"

namespace refract {

// What a kind is that can multiply by W + s B A in place of its layer's weight W.
class MergesAdapters {
 public:
  virtual ~MergesAdapters() = default;
  // Whether it can with its parameters.
  virtual bool merges() const { return true; }
  // A group of such layers; W is frozen. Enters its members in build.transformed under the name
  // `kind`; they take over and give away W. Null for a group that it can't do as one.
  virtual std::unique_ptr<Projections> merged_projections(Build build, const ProjectionSpec& spec,
                                                          const LoraSettings& settings,
                                                          const std::string& kind) const = 0;
};

// Adapters beside the layers of the kind `over`; null: dense ones. The layers share what a group of
// theirs shares (their input's quantization). Enters the members under the name `kind`.
std::unique_ptr<Projections> make_lora_beside(Build build, const ProjectionSpec& spec,
                                              const LoraSettings& settings, const Kind* over,
                                              const std::string& kind);

// Layers that multiply by W + s B A, in a medium or, without one, densely. A and B get the
// gradients of the dense product where the medium's are those by definition
// (Kind::straight_through()), else what the medium gives for its weight leads to. Null where only
// some members have a bias.
std::unique_ptr<Projections> make_lora_merged(Build build, const ProjectionSpec& spec,
                                              const LoraSettings& settings, const std::string& kind,
                                              const GivesProduct* medium = nullptr,
                                              bool straight_through = true);

// One member of a group of its own as a layer; its product has neither bias nor activation.
// `members` is what the group entered.
std::unique_ptr<LinearLayer> lone_member(std::unique_ptr<Projections> group,
                                         const std::vector<TransformedLayer>& members);

}  // namespace refract
