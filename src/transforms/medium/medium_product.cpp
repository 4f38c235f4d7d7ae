#include "transforms/medium/medium_product.h"

#include <utility>

#include "ops/dense/linear/linear.h"

namespace refract {

at::Tensor DenseProduct::forward(const ForwardContext&, const at::Tensor& x,
                                 const at::Tensor& weight) {
  return fused_linear(x, weight);
}

MediumLinear::MediumLinear(Build build, const LinearSpec& spec,
                           std::unique_ptr<MediumProduct> product)
    : DenseLinear(build, spec),
      dense_multiplications_(spec.in_features * spec.out_features),
      product_(std::move(product)) {}

at::Tensor MediumLinear::forward(const ForwardContext& context, const at::Tensor& x) {
  return product_->forward(context, x, weight());
}

int64_t MediumLinear::multiplications() const {
  const int64_t extra = product_->extra_multiplications();
  return extra > 0 ? dense_multiplications_ + extra : 0;
}

}  // namespace refract
