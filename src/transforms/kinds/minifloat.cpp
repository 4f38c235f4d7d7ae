// Minifloats: both operands of a product are small floating-point numbers without a common scale.
#include "transforms/kind.h"
#include "transforms/media/medium_layers.h"
#include "transforms/media/quantized_product.h"

namespace refract {
namespace {

class Minifloat : public Kind {
 public:
  void describe(Fields& fields) override { names_.describe(fields); }
  void check(const std::string& where) const override { formats(where); }
  bool transforms_linear() const override { return true; }
  bool transforms_attention() const override { return true; }
  bool straight_through() const override { return names_.dense_backward(); }

  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    return make_medium_linear(build, spec, medium());
  }
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return make_medium_projections(build, spec, medium(), name());
  }
  std::unique_ptr<AttentionCore> attention(Build, const AttentionSpec& spec) const override {
    return make_medium_attention(spec, medium());
  }

 private:
  ProductFormats formats(const std::string& where) const {
    return names_.formats(where, [](NumberFormat&, const std::string&) {});
  }
  SharedMedium medium() const { return std::make_shared<QuantizedProduct>(formats(name())); }

  FormatNames names_{"e4m3"};
};

}  // namespace

REFRACT_KIND(minifloat, Minifloat, "small floating-point numbers: E4M3, E5M2, E2M1, ...");

}  // namespace refract
