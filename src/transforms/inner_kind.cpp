#include "transforms/inner_kind.h"

#include "core/error.h"
#include "transforms/structured/structured_kind.h"

namespace refract {

void InnerKind::check(const std::string& where) const {
  if (text_.empty()) return;
  kind_ = make_kind(text_, where + ", over");
  if (!kind_->transforms_linear())
    fail_usage("{}: over = {} is not a kind of linear layer", where, text_);
  const auto* structured = dynamic_cast<const StructuredKind*>(kind_.get());
  if (structured && structured->joint()) {
    fail_usage("{}: joint = true joins the layers of a rule, not those that another kind is over",
               where);
  }
}

Energy InnerKind::energy(const ProductShape& product, const EnergyConstants& constants) const {
  if (kind_) return kind_->energy(product, constants);
  return {digital_energy(product.multiplications, constants), 0};
}

int64_t multiplications_of(const LinearLayer& layer, int64_t in_features, int64_t out_features) {
  const int64_t own = layer.multiplications();
  return own > 0 ? own : in_features * out_features;
}

}  // namespace refract
