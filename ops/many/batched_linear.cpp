#include "ops/many/batched_linear.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/gelu.h>

#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace batched_linear_op {

void check(const BatchedLinearInputs& in) {
  constexpr const char* op = "batched_linear";
  check_floating(op, "x", in.x);
  check_like(op, "weight", in.weight, "x", in.x);
  TORCH_CHECK(in.x.dim() == 3, "refract::", op, ": expected x of shape [A, N, K], got ",
              in.x.sym_sizes());
  TORCH_CHECK(in.weight.dim() == 3 && in.weight.sym_size(0) == in.x.sym_size(0) &&
                  in.weight.sym_size(2) == in.x.sym_size(2),
              "refract::", op, ": expected weight of shape [", in.x.sym_size(0), ", O, ",
              in.x.sym_size(2), "], got ", in.weight.sym_sizes());
  TORCH_CHECK(!in.wide || in.x.scalar_type() == at::kBFloat16, "refract::", op,
              ": expected x to be bfloat16 for a wide result, got ", in.x.scalar_type());
  if (!in.bias) return;
  const at::ScalarType dtype = in.wide ? at::kFloat : in.x.scalar_type();
  TORCH_CHECK(in.bias->scalar_type() == dtype && in.bias->device() == in.x.device() &&
                  in.bias->dim() == 3 && in.bias->sym_size(0) == in.x.sym_size(0) &&
                  in.bias->sym_size(1) == 1 && in.bias->sym_size(2) == in.weight.sym_size(1),
              "refract::", op, ": expected bias of shape [", in.x.sym_size(0), ", 1, ",
              in.weight.sym_size(1), "] and type ", dtype, " on ", in.x.device(), ", got ",
              in.bias->sym_sizes(), " and ", in.bias->scalar_type(), " on ", in.bias->device());
}

}  // namespace batched_linear_op

namespace composite {

at::Tensor batched_linear(const BatchedLinearInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  batched_linear_op::check(in);
  const at::ScalarType dtype = in.wide ? at::kFloat : in.x.scalar_type();
  const at::Tensor from = in.x.to(dtype), by = in.weight.to(dtype).transpose(1, 2);
  const at::Tensor y = in.bias ? at::baddbmm(*in.bias, from, by) : at::bmm(from, by);
  return in.gelu ? at::gelu(y, "tanh") : y;
}

}  // namespace composite

namespace {

at::Tensor meta(const BatchedLinearInputs& in) {
  batched_linear_op::check(in);
  return at::empty_symint({in.x.sym_size(0), in.x.sym_size(1), in.weight.sym_size(1)},
                          in.wide ? in.x.options().dtype(at::kFloat) : in.x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, batched_linear,
         "(Tensor x, Tensor weight, Tensor? bias, bool wide=False, bool gelu=False) -> Tensor")
      .composite<composite::batched_linear>()
      .meta<meta>();
}

}  // namespace refract
