#include "transforms/inner_kind.h"

#include "core/error.h"

namespace refract {

void InnerKind::check(const std::string& where) const {
  if (text_.empty()) return;
  kind_ = make_kind(text_, where + ", over");
  if (!kind_->transforms_linear())
    fail_usage("{}: over = {} is not a kind of linear layer", where, text_);
}

int64_t multiplications_of(const LinearLayer& layer, int64_t in_features, int64_t out_features) {
  const int64_t own = layer.multiplications();
  return own > 0 ? own : in_features * out_features;
}

}  // namespace refract
