#include "ops/dense/loss/cross_entropy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <limits>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/dispatch.h"

namespace refract {
namespace cross_entropy {

int64_t chunk_rows(int64_t n, int64_t row_bytes, int64_t limit_bytes) {
  constexpr int64_t kStep = 128;
  const int64_t most = std::max(limit_bytes / std::max<int64_t>(row_bytes, 1), kStep);
  const int64_t chunks = std::max<int64_t>((n + most - 1) / most, 1);
  const int64_t even = (n + chunks - 1) / chunks;
  return std::max((even + kStep - 1) / kStep * kStep, kStep);
}

Inputs flatten(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
               int64_t num_classes) {
  constexpr const char* op = "linear_cross_entropy";
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() >= 1 && weight.dim() == 2 && weight.size(1) == x.size(-1), "refract::", op,
              ": expected weight of shape [Vp, ", x.dim() ? x.size(-1) : 0, "], got ",
              weight.sizes(), " with x of shape ", x.sizes());
  TORCH_CHECK(targets.scalar_type() == at::kLong || targets.scalar_type() == at::kInt,
              "refract::", op, ": expected targets to be int64 or int32, got ",
              targets.scalar_type());
  TORCH_CHECK(targets.sizes() == x.sizes().slice(0, x.dim() - 1), "refract::", op,
              ": expected targets of shape ", x.sizes().slice(0, x.dim() - 1), ", got ",
              targets.sizes());
  TORCH_CHECK(targets.device() == x.device(), "refract::", op, ": expected targets on ", x.device(),
              " as x, got ", targets.device());
  TORCH_CHECK(num_classes >= 1 && num_classes <= weight.size(0), "refract::", op,
              ": expected num_classes in [1, ", weight.size(0), "], the rows of weight, got ",
              num_classes);
  return {x.detach().contiguous().view({targets.numel(), x.size(-1)}), weight.detach().contiguous(),
          targets.contiguous().view({-1})};
}

}  // namespace cross_entropy

namespace composite {
namespace {

struct Chunk {
  at::Tensor loss, correct, dlogits;
};

// Plain ATen on the logits [r, V] of r rows.
Chunk chunk_loss(const at::Tensor& logits, const at::Tensor& targets, bool need_grad) {
  const int64_t classes = logits.size(1);
  const bool wide = logits.scalar_type() == at::kDouble;
  const at::Tensor z = logits.to(wide ? at::kDouble : at::kFloat);
  const at::Tensor log_p = z.log_softmax(1);
  const at::Tensor target = targets.to(at::kLong);
  const at::Tensor counted = target.ne(kIgnoredTarget);
  const at::Tensor valid = target.ge(0).logical_and(target.lt(classes));
  const at::Tensor index = at::where(valid, target, target.new_zeros({1})).unsqueeze(1);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  at::Tensor loss = log_p.gather(1, index).squeeze(1).neg();
  loss = at::where(valid, loss, at::scalar_tensor(nan, loss.options()));
  loss = at::where(counted, loss, at::scalar_tensor(0.0, loss.options()));
  // arg max may pick any of several equal logits; the lowest index is the definition.
  const at::Tensor column = at::arange(classes, target.options()).unsqueeze(0);
  const at::Tensor is_max = z.eq(z.amax({1}, true));
  const at::Tensor first =
      at::where(is_max, column, at::scalar_tensor(classes, target.options())).amin({1});
  Chunk chunk{loss.sum(), valid.logical_and(first.eq(target)).sum(), {}};
  if (need_grad) {
    const at::Tensor hit = column.eq(index).to(z.scalar_type());
    const at::Tensor keep = valid.unsqueeze(1);
    chunk.dlogits = at::where(keep, log_p.exp() - hit, at::scalar_tensor(0.0, z.options()))
                        .to(logits.scalar_type());
  }
  return chunk;
}

}  // namespace

CrossEntropyForward linear_cross_entropy_forward(const CrossEntropyForwardInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const auto [x, weight, targets] =
      cross_entropy::flatten(in.x, in.weight, in.targets, in.num_classes);
  const at::ScalarType dtype = x.scalar_type();
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t n = x.size(0);
  // Several fp32 copies of a chunk exist here.
  const int64_t limit = x.is_cuda() ? int64_t{128} << 20 : int64_t{16} << 20;
  const int64_t chunk_rows =
      in.chunk_rows > 0 ? in.chunk_rows : cross_entropy::chunk_rows(n, in.num_classes * 4, limit);
  const at::Tensor w = weight.narrow(0, 0, in.num_classes);
  at::Tensor loss = at::zeros({}, x.options().dtype(wide));
  at::Tensor correct = at::zeros({}, targets.options().dtype(at::kLong));
  at::Tensor dx = in.need_dx ? at::empty_like(x) : at::empty({0}, x.options());
  at::Tensor dw = in.need_dweight ? at::zeros(weight.sizes(), x.options().dtype(wide))
                                  : at::empty({0}, x.options().dtype(wide));
  for (int64_t begin = 0; begin < n; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, n - begin);
    const at::Tensor xc = x.narrow(0, begin, rows);
    const Chunk chunk = chunk_loss(at::mm(xc, w.t()), targets.narrow(0, begin, rows),
                                   in.need_dx || in.need_dweight);
    loss.add_(chunk.loss);
    correct.add_(chunk.correct);
    if (in.need_dx) dx.narrow(0, begin, rows).copy_(at::mm(chunk.dlogits, w));
    if (in.need_dweight) {
      dw.narrow(0, 0, in.num_classes).add_(at::mm(chunk.dlogits.t().to(wide), xc.to(wide)));
    }
  }
  return {loss, correct, in.need_dx ? dx.view(in.x.sizes()) : dx, dw};
}

at::Tensor scale_cast(const ScaleCastInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const at::ScalarType wide = in.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return in.x.to(wide).mul(in.scale.to(wide)).to(in.dtype);
}

}  // namespace composite

namespace {

// A call, and which gradients it makes on the way.
struct LossInputs {
  const LinearCrossEntropyInputs& call;
  bool need_dx, need_dweight;
};

struct LinearCrossEntropy {
  static variable_list forward(AutogradContext* ctx, const LossInputs& in) {
    const auto& [x, weight, targets, num_classes] = in.call;
    auto [loss, correct, dx, dweight] =
        linear_cross_entropy_forward(x, weight, targets, num_classes, in.need_dx, in.need_dweight);
    ctx->save_for_backward(
        {in.need_dx ? dx : at::Tensor(), in.need_dweight ? dweight : at::Tensor()});
    ctx->saved_data["type"] = static_cast<int64_t>(x.scalar_type());
    ctx->mark_non_differentiable({correct});
    return {loss, correct};
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    variable_list out(2);
    for (int i = 0; i < 2; ++i) {
      if (saved[i].defined() && grads[0].defined()) {
        out[i] = scale_cast(saved[i], grads[0], dtype);
      }
    }
    return out;
  }
};

CrossEntropy loss_only(const LinearCrossEntropyInputs& in) {
  auto out =
      linear_cross_entropy_forward(in.x, in.weight, in.targets, in.num_classes, false, false);
  return {std::get<0>(out), std::get<1>(out)};
}

CrossEntropy loss_autograd(const LinearCrossEntropyInputs& in) {
  const LossInputs loss{in, any_gradient(in.x), any_gradient(in.weight)};
  if (!loss.need_dx && !loss.need_dweight) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return loss_only(in);
  }
  auto out = Recorded<LinearCrossEntropy>::apply(in.x, in.weight, loss);
  return {out[0], out[1]};
}

// Shapes and types only; the composite form's chunks would ask for the number of rows.
CrossEntropyForward forward_meta(const CrossEntropyForwardInputs& in) {
  const auto wide =
      in.x.options().dtype(in.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return {at::empty({}, wide), at::empty({}, in.targets.options().dtype(at::kLong)),
          in.need_dx ? at::empty_symint(in.x.sym_sizes(), in.x.options())
                     : at::empty({0}, in.x.options()),
          in.need_dweight ? at::empty_symint(in.weight.sym_sizes(), wide) : at::empty({0}, wide)};
}

at::Tensor scale_cast_meta(const ScaleCastInputs& in) {
  check_floating("scale_cast", "x", in.x);
  return at::empty_symint(in.x.sym_sizes(), in.x.options().dtype(in.dtype));
}

at::Tensor scale_cast_checked(const ScaleCastInputs& in) {
  check_floating("scale_cast", "x", in.x);
  TORCH_CHECK(in.scale.numel() == 1,
              "refract::scale_cast: expected scale to have one element, got ", in.scale.sizes());
  return composite::scale_cast(in);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, linear_cross_entropy,
         "(Tensor x, Tensor weight, Tensor targets, int num_classes)"
         " -> (Tensor loss_sum, Tensor num_correct)")
      .composite<loss_only>()
      .autograd<loss_autograd>();
  define(m, linear_cross_entropy_forward,
         "(Tensor x, Tensor weight, Tensor targets, int num_classes, bool need_dx,"
         " bool need_dweight, int chunk_rows=0) -> (Tensor, Tensor, Tensor, Tensor)")
      .composite<composite::linear_cross_entropy_forward>()
      .meta<forward_meta>();
  define(m, scale_cast, "(Tensor x, Tensor scale, ScalarType dtype) -> Tensor")
      .composite<scale_cast_checked>()
      .meta<scale_cast_meta>();
}

}  // namespace refract
