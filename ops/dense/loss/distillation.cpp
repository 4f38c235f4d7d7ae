#include "ops/dense/loss/distillation.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/dense/loss/cross_entropy.h"

namespace refract {
namespace {

constexpr const char* kDistillation = "linear_distillation";

// A call with rows of one dimension, contiguous and detached.
struct FlatCall {
  at::Tensor x, weight, targets, teacher_x, teacher_weight;
};

FlatCall flat_call(const DistillationForwardInputs& in) {
  const cross_entropy::Inputs student =
      cross_entropy::flatten(in.x, in.weight, in.targets, in.num_classes);
  const cross_entropy::Inputs teacher =
      cross_entropy::flatten(in.teacher_x, in.teacher_weight, in.targets, in.num_classes);
  check_like(kDistillation, "teacher_x", in.teacher_x, "x", in.x);
  TORCH_CHECK(in.temperature > 0, "refract::", kDistillation,
              ": expected temperature above 0, got ", in.temperature);
  TORCH_CHECK(in.mix >= 0 && in.mix <= 1, "refract::", kDistillation,
              ": expected mix in [0, 1], got ", in.mix);
  return {student.x, student.weight, student.targets, teacher.x, teacher.weight};
}

struct DistilledChunk {
  at::Tensor loss, dlogits;
};

// Of the logits [r, V] of r rows, in fp32 or float64.
DistilledChunk distilled_chunk(const at::Tensor& logits, const at::Tensor& teacher,
                               const at::Tensor& targets, const DistillationForwardInputs& in) {
  const int64_t classes = logits.size(1);
  const at::Tensor target = targets.to(at::kLong);
  const at::Tensor valid = target.ge(0).logical_and(target.lt(classes));
  const at::Tensor index = at::where(valid, target, target.new_zeros({1})).unsqueeze(1);
  const at::Tensor log_p = logits.log_softmax(1);
  const at::Tensor log_p_soft =
      in.temperature == 1 ? log_p : logits.div(in.temperature).log_softmax(1);
  const at::Tensor log_q = teacher.div(in.temperature).log_softmax(1), q = log_q.exp();
  const double soft = in.mix * in.temperature * in.temperature;
  const at::Tensor hard = log_p.gather(1, index).squeeze(1).neg();
  const at::Tensor divergence = q.mul(log_q.sub(log_p_soft)).sum(1);
  const at::Tensor zero = at::scalar_tensor(0.0, logits.options());
  const at::Tensor nan =
      at::scalar_tensor(std::numeric_limits<double>::quiet_NaN(), logits.options());
  at::Tensor loss = at::where(valid, hard.mul(1 - in.mix).add(divergence, soft), nan);
  loss = at::where(target.ne(kIgnoredTarget), loss, zero);
  DistilledChunk chunk{loss.sum(), {}};
  if (!in.need_dx && !in.need_dweight) return chunk;
  const at::Tensor column = at::arange(classes, target.options()).unsqueeze(0);
  at::Tensor gradient = log_p.exp().sub(column.eq(index).to(logits.scalar_type())).mul(1 - in.mix);
  gradient = gradient.add(log_p_soft.exp().sub(q), in.mix * in.temperature);
  chunk.dlogits = at::where(valid.unsqueeze(1), gradient, zero);
  return chunk;
}

DistillationForward distillation_forward(const DistillationForwardInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const FlatCall flat = flat_call(in);
  const at::ScalarType dtype = in.x.scalar_type();
  const at::ScalarType wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
  const int64_t n = flat.x.size(0);
  // Several fp32 copies of a chunk exist at once.
  const int64_t limit = flat.x.is_cuda() ? int64_t{128} << 20 : int64_t{16} << 20;
  const int64_t chunk_rows =
      in.chunk_rows > 0 ? in.chunk_rows : cross_entropy::chunk_rows(n, in.num_classes * 4, limit);
  const at::Tensor w = flat.weight.narrow(0, 0, in.num_classes),
                   teacher_w = flat.teacher_weight.narrow(0, 0, in.num_classes);
  at::Tensor loss = at::zeros({}, flat.x.options().dtype(wide));
  at::Tensor dx = in.need_dx ? at::empty_like(flat.x) : at::empty({0}, flat.x.options());
  at::Tensor dw = in.need_dweight ? at::zeros(flat.weight.sizes(), flat.x.options().dtype(wide))
                                  : at::empty({0}, flat.x.options().dtype(wide));
  for (int64_t begin = 0; begin < n; begin += chunk_rows) {
    const int64_t rows = std::min(chunk_rows, n - begin);
    const at::Tensor xc = flat.x.narrow(0, begin, rows);
    const DistilledChunk chunk =
        distilled_chunk(at::mm(xc, w.t()).to(wide),
                        at::mm(flat.teacher_x.narrow(0, begin, rows), teacher_w.t()).to(wide),
                        flat.targets.narrow(0, begin, rows), in);
    loss.add_(chunk.loss);
    if (in.need_dx) dx.narrow(0, begin, rows).copy_(at::mm(chunk.dlogits.to(dtype), w));
    if (in.need_dweight)
      dw.narrow(0, 0, in.num_classes).add_(at::mm(chunk.dlogits.t(), xc.to(wide)));
  }
  return {loss, in.need_dx ? dx.view(in.x.sizes()) : dx, dw};
}

// A call, and which gradients it makes on the way.
struct DistillationCall {
  const DistillationInputs& call;
  bool need_dx, need_dweight;
};

DistillationForward forward_of(const DistillationCall& in) {
  const DistillationInputs& c = in.call;
  return linear_distillation_forward(c.x, c.weight, c.targets, c.teacher_x, c.teacher_weight,
                                     c.num_classes, c.temperature, c.mix, in.need_dx,
                                     in.need_dweight);
}

struct LinearDistillation {
  static at::Tensor forward(AutogradContext* ctx, const DistillationCall& in) {
    auto [loss, dx, dweight] = forward_of(in);
    ctx->save_for_backward(
        {in.need_dx ? dx : at::Tensor(), in.need_dweight ? dweight : at::Tensor()});
    ctx->saved_data["type"] = static_cast<int64_t>(in.call.x.scalar_type());
    return loss;
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const variable_list saved = ctx->get_saved_variables();
    const auto dtype = static_cast<at::ScalarType>(ctx->saved_data["type"].toInt());
    variable_list out(2);
    for (int i = 0; i < 2; ++i) {
      if (saved[i].defined() && grads[0].defined()) out[i] = scale_cast(saved[i], grads[0], dtype);
    }
    return out;
  }
};

at::Tensor distillation_only(const DistillationInputs& in) {
  return std::get<0>(forward_of({in, false, false}));
}

at::Tensor distillation_autograd(const DistillationInputs& in) {
  const DistillationCall loss{in, any_gradient(in.x), any_gradient(in.weight)};
  if (!loss.need_dx && !loss.need_dweight) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return distillation_only(in);
  }
  return Recorded<LinearDistillation>::apply(in.x, in.weight, loss);
}

// Shapes and types only; the loop over chunks would ask for the number of rows.
DistillationForward distillation_meta(const DistillationForwardInputs& in) {
  const auto wide =
      in.x.options().dtype(in.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return {at::empty({}, wide),
          in.need_dx ? at::empty_symint(in.x.sym_sizes(), in.x.options())
                     : at::empty({0}, in.x.options()),
          in.need_dweight ? at::empty_symint(in.weight.sym_sizes(), wide) : at::empty({0}, wide)};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, linear_distillation,
         "(Tensor x, Tensor weight, Tensor targets, Tensor teacher_x, Tensor teacher_weight,"
         " int num_classes, float temperature, float mix) -> Tensor")
      .composite<distillation_only>()
      .autograd<distillation_autograd>();
  define(m, linear_distillation_forward,
         "(Tensor x, Tensor weight, Tensor targets, Tensor teacher_x, Tensor teacher_weight,"
         " int num_classes, float temperature, float mix, bool need_dx, bool need_dweight,"
         " int chunk_rows=0) -> (Tensor, Tensor, Tensor)")
      .composite<distillation_forward>()
      .meta<distillation_meta>();
}

}  // namespace refract
