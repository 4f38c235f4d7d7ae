// Schemas, checks, composite form and autograd of optical_matmul.
#include "ops/optical/matmul/matmul.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <string>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/optical/quantize/quantize.h"

namespace refract {
namespace optical_matmul_op {

void check(const OpticalMatmulInputs& in) {
  const char* op = "optical_matmul";
  check_floating(op, "a", in.a);
  check_like(op, "b", in.b, "a", in.a);
  const bool fit =
      in.a.dim() >= 2 && in.a.dim() == in.b.dim() && in.a.sym_size(-1) == in.b.sym_size(-2) &&
      in.a.sym_sizes().slice(0, in.a.dim() - 2) == in.b.sym_sizes().slice(0, in.b.dim() - 2);
  TORCH_CHECK(fit, "refract::", op,
              ": expected a [..., T, K] and b [..., K, S] with equal leading dimensions, got ",
              in.a.sym_sizes(), " and ", in.b.sym_sizes());
  optical_op::check_range(op, "a_range", in.a_range, in.a);
  optical_op::check_range(op, "b_range", in.b_range, in.a);
  optical_op::check_range(op, "out_range", in.out_range, in.a);
  optical_op::check_settings(op, in.settings, 1, in.a);
}

}  // namespace optical_matmul_op

namespace composite {

at::Tensor optical_matmul(const OpticalMatmulInputs& in) {
  optical_matmul_op::check(in);
  const OpticalSettings& s = in.settings;
  if (in.a.numel() == 0 || in.b.numel() == 0) {
    std::vector<int64_t> sizes = in.a.sizes().vec();
    sizes.back() = in.b.size(-1);
    return at::empty(sizes, in.a.options()).zero_();
  }
  const at::Tensor a_seen = optical_seen(in.a, s.quantiles),
                   b_seen = optical_seen(in.b, s.quantiles);
  const at::Tensor a_used = optical_effective(in.a_range, a_seen);
  const at::Tensor b_used = optical_effective(in.b_range, b_seen);
  const at::Tensor product = at::matmul(
      optical_values(optical_levels(in.a, a_used, s.levels, {}), a_used, s.levels, 0),
      optical_values(optical_levels(in.b, b_used, s.levels, {}), b_used, s.levels, s.lut_min));
  const at::Tensor y = optical_output(product, std::nullopt, in.out_range, s, 0);
  if (s.train) {
    optical_move_(in.a_range, in.a_range, a_seen, s.smooth);
    optical_move_(in.b_range, in.b_range, b_seen, s.smooth);
  }
  return y.to(in.a.scalar_type());
}

}  // namespace composite

namespace {

at::Tensor forward_meta(const OpticalMatmulInputs& in) {
  optical_matmul_op::check(in);
  auto sizes = in.a.sym_sizes().vec();
  sizes.back() = in.b.sym_size(-1);
  return at::empty_symint(sizes, in.a.options());
}

struct Matmul {
  static at::Tensor forward(AutogradContext* ctx, const OpticalMatmulInputs& in) {
    ctx->save_for_backward({in.a, in.b});
    return optical_matmul_forward(in);
  }
  // The dense product's.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    variable_list out(2);
    if (ctx->needs_input_grad(0)) out[0] = at::matmul(grads[0], saved[1].transpose(-1, -2));
    if (ctx->needs_input_grad(1)) out[1] = at::matmul(saved[0].transpose(-1, -2), grads[0]);
    return out;
  }
};

at::Tensor matmul_autograd(const OpticalMatmulInputs& in) {
  return recorded<Matmul>(optical_matmul_forward, in, in.a, in.b);
}

// One schema for both.
std::string schema() {
  return std::string(
             "(Tensor a, Tensor b, Tensor(a!) a_range, Tensor(b!) b_range,"
             " Tensor(c!) out_range, ") +
         optical_op::kSettings + ") -> Tensor";
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, optical_matmul, schema()).composite<matmul_autograd>().autograd<matmul_autograd>();
  define(m, optical_matmul_forward, schema())
      .composite<composite::optical_matmul>()
      .meta<forward_meta>();
}

}  // namespace refract
