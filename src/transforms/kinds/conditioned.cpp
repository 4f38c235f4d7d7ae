// What helps a real model survive a medium, as a kind over any kind that can multiply by a weight
// it is given (GivesProduct): transforms/media/conditioned_product.h. Exact in dense arithmetic.
#include <memory>
#include <string>
#include <vector>

#include "core/error.h"
#include "model/dense.h"
#include "transforms/inner_kind.h"
#include "transforms/kind.h"
#include "transforms/media/conditioned_product.h"
#include "transforms/media/hadamard.h"
#include "transforms/media/medium_layers.h"
#include "transforms/media/medium_product.h"

namespace refract {
namespace {

std::vector<std::string> kinds_that_give_products() {
  std::vector<std::string> names;
  for (const KindEntry& entry : registered_kinds()) {
    if (dynamic_cast<const GivesProduct*>(entry.make().get())) names.push_back(entry.name);
  }
  return names;
}

class Conditioned : public Kind, public GivesProduct {
 public:
  void describe(Fields& fields) override {
    fields.add("method", how_.method, "what is done to a layer before the medium sees it",
               {"smooth", "hadamard", "split", "per_token", "per_channel"});
    fields.add("alpha", how_.alpha,
               "of smooth: the share of the input's outliers that W takes over",
               {.min = 0, .max = 1});
    fields.add("channels", how_.channels,
               "of split: input channels that are computed digitally; 0: one in a hundred",
               {.min = 0});
    fields.add("seed", how_.seed, "of hadamard: another seed draws other signs");
    fields.add("turn_outputs", how_.turn_outputs,
               "of hadamard: turn a linear layer's outputs too, and turn them back digitally");
    fields.add("learned", how_.learned,
               "of hadamard: a rotation behind it that is trained, the identity at first");
    fields.add("block", how_.block,
               "of learned: channels next to each other that the rotation mixes; 0: all",
               {.min = 0});
    medium_.describe(fields, "the medium: a name, or a table with its parameters");
  }

  void check(const std::string& where) const override {
    medium_.check(where);
    if (medium_.get() && !giver()) {
      fail_usage(
          "{}: the kind \"{}\" can't multiply by a weight it is given; those that can are {}",
          where, medium_.get()->name(), fmt::join(kinds_that_give_products(), ", "));
    }
    if (!how_.learned) return;
    if (how_.method != "hadamard")
      fail_usage("{}: learned = true is of method = \"hadamard\", not of \"{}\"", where,
                 how_.method);
    if (!medium_.get() || medium_.get()->straight_through()) {
      fail_usage(
          "{}: a learned rotation has no gradient where that of the product is the dense layer's, "
          "which no rotation changes; give over = {{kind = \"optical\", gradient = \"operands\"}}",
          where);
    }
  }

  bool transforms_linear() const override { return true; }
  // q, k and v have no weight that a scale or a choice of channels could go into.
  bool transforms_attention() const override {
    return how_.method == "hadamard" && (!medium_.get() || medium_.get()->transforms_attention());
  }
  bool straight_through() const override {
    return medium_.get() && medium_.get()->straight_through();
  }
  void check_shape(const LinearSpec& spec) const override {
    check_block(spec.name, spec.in_features);
    if (how_.turn_outputs) check_block(spec.name, spec.out_features);
    if (medium_.get()) medium_.get()->check_shape(spec);
  }

  std::unique_ptr<MediumProduct> product(Build build, const LinearSpec& spec) const override {
    return make_conditioned_product(
        build, spec, how_,
        giver() ? giver()->product(build, spec) : std::make_unique<DenseProduct>());
  }
  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return std::make_unique<MediumLinear>(build, spec, product(build, spec));
  }
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override {
    check_block(spec.name, spec.head_dim);
    return make_conditioned_attention(build, spec, how_,
                                      medium_.get() ? medium_.get()->attention(build, spec)
                                                    : std::make_unique<SdpaAttention>(spec));
  }

  // The medium's, and what conditioning multiplies beside it: nothing of it is folded into other
  // layers. In attention q and k are turned for the scores, v and the output for the values.
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    double beside = product.multiplications - product.dense();
    if (product.head_dim > 0) {
      const Hadamard turn(product.head_dim, 0, "");
      const int64_t learned = how_.learned ? turned_block(how_, product.head_dim) : 0;
      beside += (product.times + static_cast<double>(product.kv_heads)) *
                static_cast<double>(turn.multiplications() + product.head_dim * learned);
    }
    ProductShape inner = product;
    inner.multiplications = product.dense();
    Energy energy = medium_.energy(inner, constants);
    energy.beside += digital_energy(beside, constants);
    return energy;
  }

 private:
  void check_block(const std::string& name, int64_t width) const {
    if (!how_.learned || width % turned_block(how_, width) == 0) return;
    int64_t nearest = turned_block(how_, width);
    while (width % nearest != 0) --nearest;
    fail_usage("'{}': block = {} does not divide its width {}; {} does", name, how_.block, width,
               nearest);
  }
  const GivesProduct* giver() const { return dynamic_cast<const GivesProduct*>(medium_.get()); }

  Conditioning how_;
  InnerKind medium_;  // dense where none is named
};

}  // namespace

REFRACT_KIND(conditioned, Conditioned,
             "what lets a real model survive a medium: smoothing, rotation, splitting, scales");

}  // namespace refract
