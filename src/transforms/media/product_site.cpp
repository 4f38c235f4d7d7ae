#include "transforms/media/product_site.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>

#include "core/random.h"

namespace refract {
namespace {

// (kEvaluationStep, 0), made on the device: a captured graph copies nothing from the host.
at::Tensor evaluation_clock(const at::Tensor& like) {
  static_assert(kEvaluationStep == -1);
  return at::arange(kEvaluationStep, 1, at::TensorOptions().dtype(at::kLong).device(like.device()));
}

}  // namespace

ProductSite::ProductSite(const std::string& name, bool weight)
    : weight(weight),
      first_stream(stream_id(name + ".first")),
      second_stream(stream_id(name + ".second")) {}

at::Tensor weight_clock(const ForwardContext& context, const at::Tensor& like) {
  if (!context.clock.defined()) return evaluation_clock(like);
  const at::Tensor step = context.clock.select(0, 0);
  return at::stack({step, at::zeros_like(step)});
}

at::Tensor activation_clock(const ForwardContext& context, const at::Tensor& x) {
  return context.clock.defined() ? element_clock(context, x) : evaluation_clock(x);
}

}  // namespace refract
