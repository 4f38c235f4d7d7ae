// Microscaling formats (OCP Microscaling Formats Specification 1.0) and NVFP4: blocks of elements
// along the dimension that a product sums over share a scale.
#include <memory>
#include <string>

#include "transforms/media/medium_kind.h"
#include "transforms/media/quantized_product.h"

namespace refract {
namespace {

constexpr int64_t kPowerScale = 1, kNvfp4Scale = 2;  // of NumberFormat::scaling
constexpr int64_t kNvfp4Block = 16;

class Mx : public MediumKind {
 public:
  void describe(Fields& fields) override {
    names_.describe(fields);
    fields.add("block", block_, "elements that share a scale; nvfp4 always has 16", {.min = 1});
  }
  void check(const std::string& where) const override { formats(where); }
  bool straight_through() const override { return names_.dense_backward(); }
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    return quantized_energy(product, formats(name()), constants);
  }

 private:
  ProductFormats formats(const std::string& where) const {
    return names_.formats(where, [this](NumberFormat& f, const std::string& named) {
      const bool nvfp4 = named == "nvfp4";
      f.scaling = nvfp4 ? kNvfp4Scale : kPowerScale;
      f.block = nvfp4 ? kNvfp4Block : block_;
    });
  }
  std::unique_ptr<MediumProduct> product_at(const ProductSite& site) const override {
    return std::make_unique<QuantizedProduct>(formats(name()), site);
  }
  bool joins_weights() const override { return formats(name()).joins_second(); }

  FormatNames names_{"e4m3", true};
  int64_t block_ = 32;
};

}  // namespace

REFRACT_KIND(mx, Mx, "microscaling formats: blocks share a scale (MX, NVFP4)");

}  // namespace refract
