// Schema, checks, composite form and autograd of rope.
#include "ops/dense/attention/rope.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace rope_op {
namespace {

void check_table(const char* name, const at::Tensor& table, const at::Tensor& x, int64_t head_dim) {
  const at::ScalarType wanted = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(table.scalar_type() == wanted, "refract::rope: expected ", name, " to be ", wanted,
              " for x of ", x.scalar_type(), ", got ", table.scalar_type());
  TORCH_CHECK(table.device() == x.device(), "refract::rope: expected ", name, " on ", x.device(),
              " as x, got ", table.device());
  TORCH_CHECK(table.dim() == 2 && table.sym_size(1) == head_dim / 2, "refract::rope: expected ",
              name, " of shape [T_max, ", head_dim / 2, "], got ", table.sym_sizes());
}

}  // namespace

void check(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
           int64_t position_offset, int64_t num_rotated_heads, int64_t head_dim) {
  check_floating("rope", "x", x);
  TORCH_CHECK(head_dim > 0 && head_dim % 2 == 0,
              "refract::rope: expected head_dim to be even and positive, got ", head_dim);
  TORCH_CHECK(x.dim() >= 2 && x.sym_size(-1) % head_dim == 0,
              "refract::rope: expected x of shape [B, T, heads * ", head_dim, "], got ",
              x.sym_sizes());
  check_table("cos", cos, x, head_dim);
  check_table("sin", sin, x, head_dim);
  check_same_shape("rope", "sin", sin, "cos", cos);
  TORCH_CHECK(num_rotated_heads >= 0 && x.sym_size(-1) / head_dim >= num_rotated_heads,
              "refract::rope: expected num_rotated_heads in [0, ", x.sym_size(-1) / head_dim,
              "], got ", num_rotated_heads);
  TORCH_CHECK(position_offset >= 0 && x.sym_size(-2) + position_offset <= cos.sym_size(0),
              "refract::rope: expected positions below ", cos.sym_size(0),
              ", the rows of cos and sin, got ", x.sym_size(-2), " from ", position_offset, " on");
}

}  // namespace rope_op

at::Tensor composite::rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                           int64_t position_offset, int64_t num_rotated_heads, int64_t head_dim,
                           bool inverse) {
  rope_op::check(x, cos, sin, position_offset, num_rotated_heads, head_dim);
  const int64_t length = x.size(-2), width = x.size(-1), rotated = num_rotated_heads * head_dim;
  auto split = x.sizes().vec();
  split.back() = num_rotated_heads;
  split.push_back(head_dim);
  const at::Tensor heads = x.narrow(-1, 0, rotated).contiguous().view(split).to(cos.scalar_type());
  // [T, 1, D/2]: one row of the tables for every head of a position.
  const at::Tensor c = cos.narrow(0, position_offset, length).unsqueeze(1);
  const at::Tensor s = sin.narrow(0, position_offset, length).unsqueeze(1).mul(inverse ? -1 : 1);
  const at::Tensor a = heads.narrow(-1, 0, head_dim / 2);
  const at::Tensor b = heads.narrow(-1, head_dim / 2, head_dim / 2);
  const at::Tensor turned =
      at::cat({a.mul(c).sub(b.mul(s)), b.mul(c).add(a.mul(s))}, -1).to(x.scalar_type());
  auto joined = x.sizes().vec();
  joined.back() = rotated;
  return at::cat({turned.view(joined), x.narrow(-1, rotated, width - rotated)}, -1).contiguous();
}

at::Tensor rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                int64_t position_offset, int64_t num_rotated_heads, int64_t head_dim,
                bool inverse) {
  static const auto op = find_op<decltype(rope)>("refract::rope");
  return op.call(x, cos, sin, position_offset, num_rotated_heads, head_dim, inverse);
}

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct Rope : torch::autograd::Function<Rope> {
  static at::Tensor forward(AutogradContext* ctx, const at::Tensor& x, const at::Tensor& cos,
                            const at::Tensor& sin, int64_t offset, int64_t rotated,
                            int64_t head_dim, bool inverse) {
    at::AutoDispatchBelowADInplaceOrView below;
    ctx->save_for_backward({cos, sin});
    ctx->saved_data["offset"] = offset;
    ctx->saved_data["rotated"] = rotated;
    ctx->saved_data["head_dim"] = head_dim;
    ctx->saved_data["inverse"] = inverse;
    return rope(x, cos, sin, offset, rotated, head_dim, inverse);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& data = ctx->saved_data;
    const at::Tensor grad_x =
        rope(grads[0], saved[0], saved[1], data.at("offset").toInt(), data.at("rotated").toInt(),
             data.at("head_dim").toInt(), !data.at("inverse").toBool());
    variable_list out(7);
    out[0] = grad_x;
    return out;
  }
};

at::Tensor rope_autograd(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                         int64_t offset, int64_t rotated, int64_t head_dim, bool inverse) {
  if (any_gradient(x)) return Rope::apply(x, cos, sin, offset, rotated, head_dim, inverse);
  at::AutoDispatchBelowADInplaceOrView below;
  return rope(x, cos, sin, offset, rotated, head_dim, inverse);
}

at::Tensor rope_meta(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin,
                     int64_t offset, int64_t rotated, int64_t head_dim, bool) {
  rope_op::check(x, cos, sin, offset, rotated, head_dim);
  return at::empty_symint(x.sym_sizes(), x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "rope(Tensor x, Tensor cos, Tensor sin, int position_offset, int num_rotated_heads,"
      " int head_dim, bool inverse=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) { m.impl("rope", composite::rope); }

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("rope", rope_autograd); }

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("rope", rope_meta); }

}  // namespace refract
