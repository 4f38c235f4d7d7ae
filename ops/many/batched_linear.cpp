#include "ops/many/batched_linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace batched_linear_op {

void check(const at::Tensor& x, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
           bool wide) {
  constexpr const char* op = "batched_linear";
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() == 3, "refract::", op, ": expected x of shape [A, N, K], got ",
              x.sym_sizes());
  TORCH_CHECK(weight.dim() == 3 && weight.sym_size(0) == x.sym_size(0) &&
                  weight.sym_size(2) == x.sym_size(2),
              "refract::", op, ": expected weight of shape [", x.sym_size(0), ", O, ",
              x.sym_size(2), "], got ", weight.sym_sizes());
  TORCH_CHECK(!wide || x.scalar_type() == at::kBFloat16, "refract::", op,
              ": expected x to be bfloat16 for a wide result, got ", x.scalar_type());
  if (!bias) return;
  const at::ScalarType dtype = wide ? at::kFloat : x.scalar_type();
  TORCH_CHECK(bias->scalar_type() == dtype && bias->device() == x.device() && bias->dim() == 3 &&
                  bias->sym_size(0) == x.sym_size(0) && bias->sym_size(1) == 1 &&
                  bias->sym_size(2) == weight.sym_size(1),
              "refract::", op, ": expected bias of shape [", x.sym_size(0), ", 1, ",
              weight.sym_size(1), "] and type ", dtype, " on ", x.device(), ", got ",
              bias->sym_sizes(), " and ", bias->scalar_type(), " on ", bias->device());
}

}  // namespace batched_linear_op

namespace composite {

at::Tensor batched_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, bool wide, bool gelu) {
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_linear_op::check(x, weight, bias, wide);
  const at::ScalarType dtype = wide ? at::kFloat : x.scalar_type();
  const at::Tensor from = x.to(dtype), by = weight.to(dtype).transpose(1, 2);
  const at::Tensor y = bias ? at::baddbmm(*bias, from, by) : at::bmm(from, by);
  return gelu ? at::gelu(y, "tanh") : y;
}

}  // namespace composite

at::Tensor batched_linear(const at::Tensor& x, const at::Tensor& weight,
                          const std::optional<at::Tensor>& bias, bool wide, bool gelu) {
  static const auto op = find_op<decltype(batched_linear)>("refract::batched_linear");
  return op.call(x, weight, bias, wide, gelu);
}

namespace {

at::Tensor meta(const at::Tensor& x, const at::Tensor& weight,
                const std::optional<at::Tensor>& bias, bool wide, bool) {
  batched_linear_op::check(x, weight, bias, wide);
  return at::empty_symint({x.sym_size(0), x.sym_size(1), weight.sym_size(1)},
                          wide ? x.options().dtype(at::kFloat) : x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "batched_linear(Tensor x, Tensor weight, Tensor? bias, bool wide=False, bool gelu=False)"
      " -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("batched_linear", &composite::batched_linear);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("batched_linear", &meta); }

}  // namespace refract
