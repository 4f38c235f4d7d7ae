// Schema, checks, composite form and autograd of rope.
#include "ops/dense/attention/rope.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"

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

void check(const RopeInputs& in) {
  check_floating("rope", "x", in.x);
  TORCH_CHECK(in.head_dim > 0 && in.head_dim % 2 == 0,
              "refract::rope: expected head_dim to be even and positive, got ", in.head_dim);
  TORCH_CHECK(in.x.dim() >= 2 && in.x.sym_size(-1) % in.head_dim == 0,
              "refract::rope: expected x of shape [B, T, heads * ", in.head_dim, "], got ",
              in.x.sym_sizes());
  check_table("cos", in.cos, in.x, in.head_dim);
  check_table("sin", in.sin, in.x, in.head_dim);
  check_same_shape("rope", "sin", in.sin, "cos", in.cos);
  TORCH_CHECK(in.num_rotated_heads >= 0 && in.x.sym_size(-1) / in.head_dim >= in.num_rotated_heads,
              "refract::rope: expected num_rotated_heads in [0, ", in.x.sym_size(-1) / in.head_dim,
              "], got ", in.num_rotated_heads);
  TORCH_CHECK(
      in.position_offset >= 0 && in.x.sym_size(-2) + in.position_offset <= in.cos.sym_size(0),
      "refract::rope: expected positions below ", in.cos.sym_size(0),
      ", the rows of cos and sin, got ", in.x.sym_size(-2), " from ", in.position_offset, " on");
}

}  // namespace rope_op

at::Tensor composite::rope(const RopeInputs& in) {
  rope_op::check(in);
  const int64_t length = in.x.size(-2), width = in.x.size(-1),
                rotated = in.num_rotated_heads * in.head_dim;
  auto split = in.x.sizes().vec();
  split.back() = in.num_rotated_heads;
  split.push_back(in.head_dim);
  const at::Tensor heads =
      in.x.narrow(-1, 0, rotated).contiguous().view(split).to(in.cos.scalar_type());
  // [T, 1, D/2]: one row of the tables for every head of a position.
  const at::Tensor c = in.cos.narrow(0, in.position_offset, length).unsqueeze(1);
  const at::Tensor s =
      in.sin.narrow(0, in.position_offset, length).unsqueeze(1).mul(in.inverse ? -1 : 1);
  const at::Tensor a = heads.narrow(-1, 0, in.head_dim / 2);
  const at::Tensor b = heads.narrow(-1, in.head_dim / 2, in.head_dim / 2);
  const at::Tensor turned =
      at::cat({a.mul(c).sub(b.mul(s)), b.mul(c).add(a.mul(s))}, -1).to(in.x.scalar_type());
  auto joined = in.x.sizes().vec();
  joined.back() = rotated;
  return at::cat({turned.view(joined), in.x.narrow(-1, rotated, width - rotated)}, -1).contiguous();
}

namespace {

struct Rope {
  static at::Tensor forward(AutogradContext* ctx, const RopeInputs& in) {
    ctx->save_for_backward({in.cos, in.sin});
    ctx->saved_data["offset"] = in.position_offset;
    ctx->saved_data["rotated"] = in.num_rotated_heads;
    ctx->saved_data["head_dim"] = in.head_dim;
    ctx->saved_data["inverse"] = in.inverse;
    return rope(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto saved = ctx->get_saved_variables();
    const auto& data = ctx->saved_data;
    return {rope(grads[0], saved[0], saved[1], data.at("offset").toInt(),
                 data.at("rotated").toInt(), data.at("head_dim").toInt(),
                 !data.at("inverse").toBool())};
  }
};

at::Tensor rope_autograd(const RopeInputs& in) { return recorded<Rope>(rope, in, in.x); }

at::Tensor rope_meta(const RopeInputs& in) {
  rope_op::check(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, rope,
         "(Tensor x, Tensor cos, Tensor sin, int position_offset, int num_rotated_heads,"
         " int head_dim, bool inverse=False) -> Tensor")
      .composite<composite::rope>()
      .autograd<rope_autograd>()
      .meta<rope_meta>();
}

}  // namespace refract
