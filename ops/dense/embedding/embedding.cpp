#include "ops/dense/embedding/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"

namespace refract {
namespace embedding {

void check(const EmbedInputs& in) {
  constexpr const char* op = "embed";
  check_floating(op, "wte", in.wte);
  TORCH_CHECK(in.tokens.dim() == 2 &&
                  (in.tokens.scalar_type() == at::kLong || in.tokens.scalar_type() == at::kInt),
              "refract::", op, ": expected tokens [B, T] of int64 or int32, got ",
              in.tokens.sizes(), " of ", in.tokens.scalar_type());
  TORCH_CHECK(in.tokens.device() == in.wte.device(), "refract::", op, ": expected tokens on ",
              in.wte.device(), " as wte, got ", in.tokens.device());
  TORCH_CHECK(in.wte.dim() == 2, "refract::", op, ": expected wte [V, C], got ", in.wte.sizes());
  if (!in.wpe || !in.wpe->defined()) return;
  check_like(op, "wpe", *in.wpe, "wte", in.wte);
  TORCH_CHECK(in.wpe->dim() == 2 && in.wpe->size(1) == in.wte.size(1), "refract::", op,
              ": expected wpe [Tmax, ", in.wte.size(1), "], got ", in.wpe->sizes());
  TORCH_CHECK(in.position_offset >= 0 && in.position_offset + in.tokens.size(1) <= in.wpe->size(0),
              "refract::", op, ": expected positions up to ", in.wpe->size(0),
              ", the rows of wpe, got ", in.position_offset, " + ", in.tokens.size(1));
}

void check_backward(const EmbedBackwardInputs& in) {
  constexpr const char* op = "embed_backward";
  check_floating(op, "grad", in.grad);
  TORCH_CHECK(in.tokens.scalar_type() == at::kLong || in.tokens.scalar_type() == at::kInt,
              "refract::", op, ": expected tokens of int64 or int32, got ",
              in.tokens.scalar_type());
  TORCH_CHECK(in.grad.dim() >= 1 &&
                  in.grad.sym_sizes().slice(0, in.grad.dim() - 1) == in.tokens.sym_sizes(),
              "refract::", op, ": expected grad of shape ", in.tokens.sizes(), " and C, got ",
              in.grad.sizes());
}

void check_positions(const EmbedPositionsBackwardInputs& in) {
  constexpr const char* op = "embed_positions_backward";
  check_floating(op, "grad", in.grad);
  TORCH_CHECK(in.grad.dim() == 3 && in.position_offset >= 0 &&
                  in.position_offset + in.grad.size(1) <= in.positions,
              "refract::", op, ": expected grad [B, T, C] with ", in.position_offset,
              " + T <= ", in.positions, ", got ", in.grad.sizes());
}

}  // namespace embedding

namespace composite {
namespace {

at::ScalarType wide(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

at::Tensor embed(const EmbedInputs& in) {
  embedding::check(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::Tensor rows = at::index_select(in.wte, 0, in.tokens.reshape({-1}));
  at::Tensor out = rows.view({in.tokens.size(0), in.tokens.size(1), in.wte.size(1)});
  if (!in.wpe || !in.wpe->defined()) return out;
  return out + in.wpe->narrow(0, in.position_offset, in.tokens.size(1));
}

at::Tensor embed_backward(const EmbedBackwardInputs& in) {
  embedding::check_backward(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::SymInt width = in.grad.sym_size(-1);
  at::Tensor sum = at::zeros_symint({in.rows, width}, in.grad.options().dtype(wide(in.grad)));
  sum.index_put_({in.tokens.reshape({-1}).to(at::kLong)},
                 in.grad.reshape_symint({in.tokens.sym_numel(), width}).to(sum.scalar_type()),
                 /*accumulate=*/true);
  return sum.to(in.grad.scalar_type());
}

at::Tensor embed_positions_backward(const EmbedPositionsBackwardInputs& in) {
  embedding::check_positions(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  at::Tensor out = at::zeros({in.positions, in.grad.size(2)}, in.grad.options());
  out.narrow(0, in.position_offset, in.grad.size(1))
      .copy_(in.grad.sum(at::IntArrayRef{0}, false, wide(in.grad)));
  return out;
}

}  // namespace composite

namespace {

struct Embed {
  static at::Tensor forward(AutogradContext* ctx, const EmbedInputs& in) {
    const at::Tensor wpe = value_or_undefined(in.wpe);
    ctx->save_for_backward({in.tokens});
    // A traced model is special to the sizes of its tables.
    ctx->saved_data["rows"] = in.wte.sym_size(0).guard_int(__FILE__, __LINE__);
    ctx->saved_data["positions"] =
        wpe.defined() ? wpe.sym_size(0).guard_int(__FILE__, __LINE__) : int64_t{-1};
    ctx->saved_data["offset"] = in.position_offset;
    ctx->saved_data["wte"] = in.wte.requires_grad();
    ctx->saved_data["wpe"] = wants_gradient(wpe);
    return embed(in.tokens, in.wte, optional_of(wpe), in.position_offset);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const at::Tensor tokens = ctx->get_saved_variables()[0];
    auto& data = ctx->saved_data;
    variable_list out(2);
    if (!grads[0].defined()) return out;
    if (data["wte"].toBool()) {
      out[0] = embed_backward(grads[0], tokens, data["rows"].toInt());
    }
    if (data["wpe"].toBool()) {
      out[1] =
          embed_positions_backward(grads[0], data["positions"].toInt(), data["offset"].toInt());
    }
    return out;
  }
};

at::Tensor embed_autograd(const EmbedInputs& in) {
  return recorded<Embed>(embed, in, in.wte, in.wpe);
}

at::Tensor embed_meta(const EmbedInputs& in) {
  embedding::check(in);
  return at::empty_symint({in.tokens.sym_size(0), in.tokens.sym_size(1), in.wte.sym_size(1)},
                          in.wte.options());
}

at::Tensor embed_backward_meta(const EmbedBackwardInputs& in) {
  embedding::check_backward(in);
  return at::empty_symint({in.rows, in.grad.sym_size(-1)}, in.grad.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, embed, "(Tensor tokens, Tensor wte, Tensor? wpe=None, int position_offset=0) -> Tensor")
      .composite<composite::embed>()
      .autograd<embed_autograd>()
      .meta<embed_meta>();
  define(m, embed_backward, "(Tensor grad, Tensor tokens, int rows) -> Tensor")
      .composite<composite::embed_backward>()
      .meta<embed_backward_meta>();
  define(m, embed_positions_backward, "(Tensor grad, int positions, int position_offset) -> Tensor")
      .composite<composite::embed_positions_backward>();
}

}  // namespace refract
