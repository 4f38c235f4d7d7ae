// Plain quantization to integers, the baseline: symmetric or not, one scale per tensor, per token
// or output channel, or per group of the summed dimension.
#include <cmath>
#include <memory>
#include <optional>
#include <string>

#include "core/error.h"
#include "transforms/media/medium_kind.h"
#include "transforms/media/quantized_product.h"

namespace refract {
namespace {

constexpr int64_t kLargest = 3, kLimits = 4;  // of NumberFormat::scaling

class Integer : public MediumKind {
 public:
  void describe(Fields& fields) override {
    fields.add("x_bits", x_bits_, "of the input; 0: left alone", {.min = 0, .max = 16});
    fields.add("w_bits", w_bits_, "of the weight; 0: left alone", {.min = 0, .max = 16});
    fields.add("x_scale", x_scale_, "what shares a scale", {"tensor", "token", "group"});
    fields.add("w_scale", w_scale_, "what shares a scale", {"tensor", "channel", "group"});
    fields.add("group", group_, "inputs that share a scale where that is per group", {.min = 1});
    fields.add("symmetric", symmetric_, "from -max to max; false: from smallest to largest");
    fields.add("stochastic", stochastic_, "round up or down by chance");
  }
  void check(const std::string& where) const override {
    for (const int64_t bits : {x_bits_, w_bits_}) {
      if (bits == 1)
        fail_usage("{}: an integer of 1 bit has no magnitude; 2 bits or more, or 0", where);
    }
  }
  bool straight_through() const override { return true; }
  Energy energy(const ProductShape& product, const EnergyConstants& constants) const override {
    return quantized_energy(product, formats(product.head_dim == 0), constants);
  }

 private:
  // Keys and values are activations: both operands of their products follow x's parameters.
  std::unique_ptr<MediumProduct> product_at(const ProductSite& site) const override {
    return std::make_unique<QuantizedProduct>(formats(site.weight), site);
  }
  bool joins_weights() const override { return formats(true).joins_second(); }
  std::optional<NumberFormat> format(int64_t bits, const std::string& scale) const {
    if (bits == 0) return std::nullopt;
    NumberFormat f;
    f.exponent_bits = 0;
    f.mantissa_bits = bits - 2;
    f.max = std::ldexp(std::ldexp(1, static_cast<int>(bits - 1)) - 1, static_cast<int>(2 - bits));
    f.scaling = symmetric_ ? kLargest : kLimits;
    f.rounding = stochastic_ ? 3 : 0;
    f.block = scale == "tensor" ? -1 : scale == "group" ? group_ : 0;
    return f;
  }
  ProductFormats formats(bool with_weight) const {
    ProductFormats all;
    all.first = format(x_bits_, x_scale_);
    all.second = with_weight ? format(w_bits_, w_scale_) : all.first;
    return all;
  }

  int64_t x_bits_ = 8, w_bits_ = 8, group_ = 128;
  std::string x_scale_ = "token", w_scale_ = "channel";
  bool symmetric_ = true, stochastic_ = false;
};

}  // namespace

REFRACT_KIND(integer, Integer, "plain integers: INT8, INT4, of any granularity");

}  // namespace refract
