// What the kinds whose products take place in a ProductMedium share: they stand for linear layers,
// groups of them, and attention.
#pragma once
#include <memory>

#include "transforms/kind.h"
#include "transforms/media/medium_layers.h"

namespace refract {

class MediumKind : public Kind {
 public:
  bool transforms_linear() const override { return true; }
  bool transforms_attention() const override { return true; }

  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return make_medium_linear(build, spec, linear_medium());
  }
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return make_medium_projections(build, spec, linear_medium(), name());
  }
  std::unique_ptr<AttentionCore> attention(Build /*build*/,
                                           const AttentionSpec& spec) const override {
    return make_medium_attention(spec, attention_medium());
  }

 protected:
  virtual SharedMedium linear_medium() const = 0;
  // Of products of two activations.
  virtual SharedMedium attention_medium() const { return linear_medium(); }
};

}  // namespace refract
