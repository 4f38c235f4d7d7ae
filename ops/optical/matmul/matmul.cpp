// Schema, composite form and autograd of optical_matmul.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/optical/matmul/product.h"
#include "ops/optical/matmul/product_schema.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace composite {

at::Tensor optical_matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                          const at::Tensor& b_range, const at::Tensor& out_range,
                          const OpticalSettings& s) {
  optical_op::check_matmul(a, b, a_range, b_range, out_range, s);
  if (a.numel() == 0 || b.numel() == 0) {
    std::vector<int64_t> sizes = a.sizes().vec();
    sizes.back() = b.size(-1);
    return at::empty(sizes, a.options()).zero_();
  }
  const at::Tensor a_seen = optical_seen(a, s.quantiles), b_seen = optical_seen(b, s.quantiles);
  const at::Tensor a_used = optical_effective(a_range, a_seen);
  const at::Tensor b_used = optical_effective(b_range, b_seen);
  const at::Tensor product = at::matmul(
      optical_values(optical_levels(a, a_used, s.levels, {}), a_used, s.levels, 0),
      optical_values(optical_levels(b, b_used, s.levels, {}), b_used, s.levels, s.lut_min));
  const at::Tensor y = optical_output(product, std::nullopt, out_range, s, 0);
  if (s.train) {
    optical_move_(a_range, a_range, a_seen, s.smooth);
    optical_move_(b_range, b_range, b_seen, s.smooth);
  }
  return y.to(a.scalar_type());
}

}  // namespace composite

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor forward_plain(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                         const at::Tensor& b_range, const at::Tensor& out_range,
                         REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  return composite::optical_matmul(a, b, a_range, b_range, out_range,
                                   REFRACT_OPTICAL_SETTINGS_PACK);
}

at::Tensor forward_meta(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                        const at::Tensor& b_range, const at::Tensor& out_range,
                        REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  optical_op::check_matmul(a, b, a_range, b_range, out_range, REFRACT_OPTICAL_SETTINGS_PACK);
  auto sizes = a.sym_sizes().vec();
  sizes.back() = b.sym_size(-1);
  return at::empty_symint(sizes, a.options());
}

struct MatmulCall {
  at::Tensor a_range, b_range, out_range;
  const OpticalSettings& settings;

  at::Tensor operator()(const at::Tensor& a, const at::Tensor& b) const {
    at::AutoDispatchBelowADInplaceOrView below;
    return optical_op::matmul_forward(a, b, a_range, b_range, out_range,
                                      REFRACT_OPTICAL_SETTINGS_UNPACK(settings));
  }
};

struct Matmul : torch::autograd::Function<Matmul> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& a, const at::Tensor& b,
                            const MatmulCall& call) {
    ctx->save_for_backward({a, b});
    return call(a, b);
  }
  // The dense product's.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out(3);
    if (ctx->needs_input_grad(0)) out[0] = at::matmul(grads[0], saved[1].transpose(-1, -2));
    if (ctx->needs_input_grad(1)) out[1] = at::matmul(saved[0].transpose(-1, -2), grads[0]);
    return out;
  }
};

at::Tensor matmul_autograd(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                           const at::Tensor& b_range, const at::Tensor& out_range,
                           REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  const OpticalSettings settings = REFRACT_OPTICAL_SETTINGS_PACK;
  const MatmulCall call{a_range, b_range, out_range, settings};
  return any_gradient(a, b) ? Matmul::apply(a, b, call) : call(a, b);
}

}  // namespace

at::Tensor optical_op::matmul_forward(const at::Tensor& a, const at::Tensor& b,
                                      const at::Tensor& a_range, const at::Tensor& b_range,
                                      const at::Tensor& out_range,
                                      REFRACT_OPTICAL_SETTINGS_PARAMETERS) {
  static const auto op = find_op<decltype(matmul_forward)>("refract::optical_matmul_forward");
  return op.call(a, b, a_range, b_range, out_range, levels, lut_min, smooth, quantiles, train,
                 ranges_set, clipped_ranges, noise, shared_noise, clock, seed, streams);
}

at::Tensor optical_matmul(const at::Tensor& a, const at::Tensor& b, const at::Tensor& a_range,
                          const at::Tensor& b_range, const at::Tensor& out_range,
                          const OpticalSettings& settings) {
  static const auto op = find_op<decltype(matmul_autograd)>("refract::optical_matmul");
  return op.call(a, b, a_range, b_range, out_range, REFRACT_OPTICAL_SETTINGS_UNPACK(settings));
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "optical_matmul(Tensor a, Tensor b, Tensor(a!) a_range, Tensor(b!) b_range,"
      " Tensor(c!) out_range, " REFRACT_OPTICAL_SETTINGS_SCHEMA ") -> Tensor");
  m.def(
      "optical_matmul_forward(Tensor a, Tensor b, Tensor(a!) a_range, Tensor(b!) b_range,"
      " Tensor(c!) out_range, " REFRACT_OPTICAL_SETTINGS_SCHEMA ") -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("optical_matmul", matmul_autograd);
  m.impl("optical_matmul_forward", forward_plain);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("optical_matmul", matmul_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("optical_matmul_forward", forward_meta); }

}  // namespace refract
