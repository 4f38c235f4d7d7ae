// Minifloats: both operands of a product are small floating-point numbers without a common scale.
#include <memory>
#include <string>

#include "transforms/media/medium_kind.h"
#include "transforms/media/quantized_product.h"

namespace refract {
namespace {

class Minifloat : public MediumKind {
 public:
  void describe(Fields& fields) override { names_.describe(fields); }
  void check(const std::string& where) const override { formats(where); }
  bool straight_through() const override { return names_.dense_backward(); }
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    return quantized_energy(product, formats(name()), constants);
  }

 private:
  ProductFormats formats(const std::string& where) const {
    return names_.formats(where, [](NumberFormat&, const std::string&) {});
  }
  std::unique_ptr<MediumProduct> product_at(const ProductSite& site) const override {
    return std::make_unique<QuantizedProduct>(formats(name()), site);
  }

  FormatNames names_{"e4m3"};
};

}  // namespace

REFRACT_KIND(minifloat, Minifloat, "small floating-point numbers: E4M3, E5M2, E2M1, ...");

}  // namespace refract
