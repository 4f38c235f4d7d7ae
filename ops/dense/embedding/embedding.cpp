#include "ops/dense/embedding/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/index_select.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"
#include "ops/common/dispatch.h"

namespace refract {
namespace embedding {

void check(const at::Tensor& tokens, const at::Tensor& wte, const std::optional<at::Tensor>& wpe,
           int64_t position_offset) {
  constexpr const char* op = "embed";
  check_floating(op, "wte", wte);
  TORCH_CHECK(
      tokens.dim() == 2 && (tokens.scalar_type() == at::kLong || tokens.scalar_type() == at::kInt),
      "refract::", op, ": expected tokens [B, T] of int64 or int32, got ", tokens.sizes(), " of ",
      tokens.scalar_type());
  TORCH_CHECK(tokens.device() == wte.device(), "refract::", op, ": expected tokens on ",
              wte.device(), " as wte, got ", tokens.device());
  TORCH_CHECK(wte.dim() == 2, "refract::", op, ": expected wte [V, C], got ", wte.sizes());
  if (!wpe || !wpe->defined()) return;
  check_like(op, "wpe", *wpe, "wte", wte);
  TORCH_CHECK(wpe->dim() == 2 && wpe->size(1) == wte.size(1), "refract::", op,
              ": expected wpe [Tmax, ", wte.size(1), "], got ", wpe->sizes());
  TORCH_CHECK(position_offset >= 0 && position_offset + tokens.size(1) <= wpe->size(0),
              "refract::", op, ": expected positions up to ", wpe->size(0),
              ", the rows of wpe, got ", position_offset, " + ", tokens.size(1));
}

void check_backward(const at::Tensor& grad, const at::Tensor& tokens) {
  constexpr const char* op = "embed_backward";
  check_floating(op, "grad", grad);
  TORCH_CHECK(tokens.scalar_type() == at::kLong || tokens.scalar_type() == at::kInt,
              "refract::", op, ": expected tokens of int64 or int32, got ", tokens.scalar_type());
  TORCH_CHECK(grad.dim() >= 1 && grad.sym_sizes().slice(0, grad.dim() - 1) == tokens.sym_sizes(),
              "refract::", op, ": expected grad of shape ", tokens.sizes(), " and C, got ",
              grad.sizes());
}

void check_positions(const at::Tensor& grad, int64_t positions, int64_t position_offset) {
  constexpr const char* op = "embed_positions_backward";
  check_floating(op, "grad", grad);
  TORCH_CHECK(
      grad.dim() == 3 && position_offset >= 0 && position_offset + grad.size(1) <= positions,
      "refract::", op, ": expected grad [B, T, C] with ", position_offset, " + T <= ", positions,
      ", got ", grad.sizes());
}

}  // namespace embedding

namespace composite {
namespace {

at::ScalarType wide(const at::Tensor& t) {
  return t.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
}

}  // namespace

at::Tensor embed(const at::Tensor& tokens, const at::Tensor& wte,
                 const std::optional<at::Tensor>& wpe, int64_t position_offset) {
  embedding::check(tokens, wte, wpe, position_offset);
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::Tensor rows = at::index_select(wte, 0, tokens.reshape({-1}));
  at::Tensor out = rows.view({tokens.size(0), tokens.size(1), wte.size(1)});
  if (!wpe || !wpe->defined()) return out;
  return out + wpe->narrow(0, position_offset, tokens.size(1));
}

at::Tensor embed_backward(const at::Tensor& grad, const at::Tensor& tokens, int64_t rows) {
  embedding::check_backward(grad, tokens);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::SymInt width = grad.sym_size(-1);
  at::Tensor sum = at::zeros_symint({rows, width}, grad.options().dtype(wide(grad)));
  sum.index_put_({tokens.reshape({-1}).to(at::kLong)},
                 grad.reshape_symint({tokens.sym_numel(), width}).to(sum.scalar_type()),
                 /*accumulate=*/true);
  return sum.to(grad.scalar_type());
}

at::Tensor embed_positions_backward(const at::Tensor& grad, int64_t positions,
                                    int64_t position_offset) {
  embedding::check_positions(grad, positions, position_offset);
  at::AutoDispatchBelowADInplaceOrView guard;
  at::Tensor out = at::zeros({positions, grad.size(2)}, grad.options());
  out.narrow(0, position_offset, grad.size(1))
      .copy_(grad.sum(at::IntArrayRef{0}, false, wide(grad)));
  return out;
}

}  // namespace composite

namespace {

using MaybeTensor = std::optional<at::Tensor>;
using Embed = at::Tensor(const at::Tensor&, const at::Tensor&, const MaybeTensor&, int64_t);
using Backward = at::Tensor(const at::Tensor&, const at::Tensor&, int64_t);
using PositionsBackward = at::Tensor(const at::Tensor&, int64_t, int64_t);

class EmbedFunction : public torch::autograd::Function<EmbedFunction> {
 public:
  using Context = torch::autograd::AutogradContext;
  using Variables = torch::autograd::variable_list;

  static at::Tensor forward(Context* context, const at::Tensor& tokens, const at::Tensor& wte,
                            const MaybeTensor& wpe_in, int64_t position_offset) {
    at::AutoDispatchBelowADInplaceOrView guard;
    const at::Tensor wpe = value_or_undefined(wpe_in);
    context->save_for_backward({tokens});
    // A traced model is special to the sizes of its tables.
    context->saved_data["rows"] = wte.sym_size(0).guard_int(__FILE__, __LINE__);
    context->saved_data["positions"] =
        wpe.defined() ? wpe.sym_size(0).guard_int(__FILE__, __LINE__) : int64_t{-1};
    context->saved_data["offset"] = position_offset;
    context->saved_data["wte"] = wte.requires_grad();
    context->saved_data["wpe"] = wpe.defined() && wpe.requires_grad();
    return refract::embed(tokens, wte, optional_of(wpe), position_offset);
  }

  static Variables backward(Context* context, Variables grads) {
    const at::Tensor tokens = context->get_saved_variables()[0];
    Variables out(4);
    if (!grads[0].defined()) return out;
    if (context->saved_data["wte"].toBool()) {
      out[1] = refract::embed_backward(grads[0], tokens, context->saved_data["rows"].toInt());
    }
    if (context->saved_data["wpe"].toBool()) {
      out[2] = refract::embed_positions_backward(grads[0], context->saved_data["positions"].toInt(),
                                                 context->saved_data["offset"].toInt());
    }
    return out;
  }
};

at::Tensor embed_autograd(const at::Tensor& tokens, const at::Tensor& wte, const MaybeTensor& wpe,
                          int64_t position_offset) {
  if (!any_gradient(wte, wpe)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return embed(tokens, wte, wpe, position_offset);
  }
  return EmbedFunction::apply(tokens, wte, wpe, position_offset);
}

}  // namespace

at::Tensor embed(const at::Tensor& tokens, const at::Tensor& wte, const MaybeTensor& wpe,
                 int64_t position_offset) {
  static const auto op = find_op<Embed>("refract::embed");
  return op.call(tokens, wte, wpe, position_offset);
}

at::Tensor embed_backward(const at::Tensor& grad, const at::Tensor& tokens, int64_t rows) {
  static const auto op = find_op<Backward>("refract::embed_backward");
  return op.call(grad, tokens, rows);
}

at::Tensor embed_positions_backward(const at::Tensor& grad, int64_t positions,
                                    int64_t position_offset) {
  static const auto op = find_op<PositionsBackward>("refract::embed_positions_backward");
  return op.call(grad, positions, position_offset);
}

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def("embed(Tensor tokens, Tensor wte, Tensor? wpe=None, int position_offset=0) -> Tensor");
  m.def("embed_backward(Tensor grad, Tensor tokens, int rows) -> Tensor");
  m.def("embed_positions_backward(Tensor grad, int positions, int position_offset) -> Tensor");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("embed", &composite::embed);
  m.impl("embed_backward", &composite::embed_backward);
  m.impl("embed_positions_backward", &composite::embed_positions_backward);
}

TORCH_LIBRARY_IMPL(refract, Autograd, m) { m.impl("embed", &embed_autograd); }

}  // namespace refract
