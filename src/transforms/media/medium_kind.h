// What the kinds share whose medium changes the operands of a product: they stand for linear
// layers, groups of them, and attention, other kinds can stand on them (GivesProduct), and adapters
// may be merged into the weights that they multiply by.
#pragma once
#include <memory>
#include <string>

#include "transforms/kind.h"
#include "transforms/lora/lora_projections.h"
#include "transforms/media/medium_layers.h"
#include "transforms/media/medium_product.h"
#include "transforms/media/product_site.h"

namespace refract {

class MediumKind : public Kind, public GivesProduct, public MergesAdapters {
 public:
  bool transforms_linear() const override { return true; }
  bool transforms_attention() const override { return true; }

  std::unique_ptr<MediumProduct> product(Build /*build*/, const LinearSpec& spec) const override {
    return product_at(ProductSite(spec.name, true));
  }
  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return std::make_unique<MediumLinear>(build, spec, product(build, spec));
  }
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return joins_weights() ? make_medium_projections(build, spec, *this, name()) : nullptr;
  }
  std::unique_ptr<Projections> merged_projections(Build build, const ProjectionSpec& spec,
                                                  const LoraSettings& settings,
                                                  const std::string& kind) const override {
    if (spec.members.size() > 1 && !joins_weights()) return nullptr;
    return make_lora_merged(build, spec, settings, kind, this, straight_through());
  }
  std::unique_ptr<AttentionCore> attention(Build /*build*/,
                                           const AttentionSpec& spec) const override {
    return make_medium_attention(spec, product_at(ProductSite(spec.name + ".qk", false)),
                                 product_at(ProductSite(spec.name + ".av", false)));
  }

 protected:
  // With a weight or of two activations, as the site says.
  virtual std::unique_ptr<MediumProduct> product_at(const ProductSite& site) const = 0;
  // Whether layers that share their input may be one product over their joined weights. Not where a
  // weight is represented as a whole, by one scale.
  virtual bool joins_weights() const { return true; }
};

}  // namespace refract
