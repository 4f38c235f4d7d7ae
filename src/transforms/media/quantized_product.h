// A matrix product whose operands are rounded to number formats, with formats of their own for the
// products of the backward pass.
#pragma once
#include <optional>
#include <string>
#include <utility>

#include "core/config.h"
#include "ops/numeric/quantize.h"
#include "transforms/energy.h"
#include "transforms/media/medium_product.h"
#include "transforms/media/product_site.h"

namespace refract {

// y = Q(first) Q(second)^T; backward
//   dfirst = Q(g) Q(second) and dsecond = Q(g)^T Q(first),
// each operand quantized along the dimension that its product sums over, from its value before
// quantization. Without a format an operand is left alone: with none in the backward pass the
// gradients are the dense product's.
struct ProductFormats {
  std::optional<NumberFormat> first, second;  // forward
  std::optional<NumberFormat> grad_for_first, second_for_first;
  std::optional<NumberFormat> grad_for_second, first_for_second;

  bool dense_backward() const {
    return !grad_for_first && !second_for_first && !grad_for_second && !first_for_second;
  }
  // Whether the second operands of several products may be rounded as one: none has a scale of the
  // whole tensor.
  bool joins_second() const;
};

// Bits of an operand: 16 where it is left alone.
double operand_bits(const std::optional<NumberFormat>& format);

// Of a product whose operands have these formats, in digital arithmetic of their widths.
Energy quantized_energy(const ProductShape& product, const ProductFormats& formats,
                        const EnergyConstants& constants);

// Dense while an observer is set (transforms/media/observer.h).
class QuantizedProduct : public MediumProduct {
 public:
  QuantizedProduct(const ProductFormats& formats, const ProductSite& site)
      : formats_(formats), site_(site) {}
  at::Tensor multiply(const ForwardContext& context, const at::Tensor& first,
                      const at::Tensor& second) override;

 private:
  ProductFormats formats_;
  ProductSite site_;
  at::Tensor prepared_;  // a weight as the product takes it
};

// What the kinds that differ in their formats alone share: parameters that name formats. A kind
// calls describe() after its own parameters.
struct FormatNames {
  std::string format, x_format = "same", w_format = "same", grad_format = "none",
                      backward_x_format = "none", backward_w_format = "none", rounding = "even",
                      backward_rounding = "even";

  bool knows_nvfp4;  // whose elements are e2m1's

  explicit FormatNames(std::string format, bool knows_nvfp4 = false)
      : format(std::move(format)), knows_nvfp4(knows_nvfp4) {}
  void describe(Fields& fields);
  bool dense_backward() const {
    return grad_format == "none" && backward_x_format == "none" && backward_w_format == "none";
  }
  // `scale` adds to an element format how it is scaled. Fails (usage) naming `where`.
  template <class Scale>
  ProductFormats formats(const std::string& where, Scale scale) const;

 private:
  std::optional<NumberFormat> named(const std::string& name, const std::string& rounding_name,
                                    const std::string& where) const;
};

template <class Scale>
ProductFormats FormatNames::formats(const std::string& where, Scale scale) const {
  const auto of = [&](const std::string& name, const std::string& rounding_name) {
    auto f = named(name, rounding_name, where);
    if (f) scale(*f, name == "same" ? format : name);
    return f;
  };
  ProductFormats all;
  all.first = of(x_format, rounding);
  all.second = of(w_format, rounding);
  all.grad_for_first = all.grad_for_second = of(grad_format, backward_rounding);
  all.second_for_first = of(backward_w_format, backward_rounding);
  all.first_for_second = of(backward_x_format, backward_rounding);
  return all;
}

}  // namespace refract
