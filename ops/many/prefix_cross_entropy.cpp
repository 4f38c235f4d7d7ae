// Schema, checks and composite form of prefix_cross_entropy.
#include "ops/many/prefix_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>
#include <torch/library.h>

#include "ops/common/call.h"
#include "ops/common/check.h"

namespace refract {
namespace prefix_cross_entropy_op {

void check(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rows,
           const at::Tensor& targets, const at::Tensor& counts, int64_t num_classes) {
  constexpr const char* op = "prefix_cross_entropy";
  check_floating(op, "x", x);
  check_like(op, "weight", weight, "x", x);
  TORCH_CHECK(x.dim() == 3, "refract::", op, ": expected x of shape [A, N, C], got ",
              x.sym_sizes());
  TORCH_CHECK(weight.dim() == 3 && weight.sym_size(0) == x.sym_size(0) &&
                  weight.sym_size(2) == x.sym_size(2),
              "refract::", op, ": expected weight of shape [", x.sym_size(0), ", Vp, ",
              x.sym_size(2), "], got ", weight.sym_sizes());
  TORCH_CHECK(num_classes >= 1 && num_classes <= weight.sym_size(1), "refract::", op,
              ": expected num_classes in [1, ", weight.sym_size(1), "], the rows of weight, got ",
              num_classes);
  TORCH_CHECK(rows.dim() == 1, "refract::", op, ": expected rows of shape [P], got ",
              rows.sym_sizes());
  const std::pair<const char*, const at::Tensor*> all[] = {
      {"rows", &rows}, {"targets", &targets}, {"counts", &counts}};
  for (const auto& [name, t] : all) {
    check_vector(op, name, *t, rows.sym_size(0));
    TORCH_CHECK(t->scalar_type() == at::kLong && t->device() == x.device(), "refract::", op,
                ": expected ", name, " to be int64 on ", x.device(), " as x, got ",
                t->scalar_type(), " on ", t->device());
  }
}

}  // namespace prefix_cross_entropy_op

namespace composite {

std::tuple<at::Tensor, at::Tensor> prefix_cross_entropy(
    const at::Tensor& x, const at::Tensor& weight, const at::Tensor& rows,
    const at::Tensor& targets, const at::Tensor& counts, int64_t num_classes) {
  at::AutoDispatchBelowADInplaceOrView guard;
  prefix_cross_entropy_op::check(x, weight, rows, targets, counts, num_classes);
  const at::ScalarType wide = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor logits =
      at::bmm(x.to(wide), weight.narrow(1, 0, num_classes).to(wide).transpose(1, 2));
  const at::Tensor lse = logits.to(at::kDouble).logsumexp(-1);
  const at::Tensor best = logits.argmax(-1);
  const at::Tensor mine =
      logits.flatten(1).index_select(1, rows.mul(num_classes).add(targets)).to(at::kDouble);
  const at::Tensor loss = lse.index_select(1, rows).sub(mine).mul(counts);
  const at::Tensor correct = best.index_select(1, rows).eq(targets).mul(counts);
  return {loss.sum(-1), correct.sum(-1)};
}

}  // namespace composite

BatchedCrossEntropy prefix_cross_entropy(const at::Tensor& x, const at::Tensor& weight,
                                         const at::Tensor& rows, const at::Tensor& targets,
                                         const at::Tensor& counts, int64_t num_classes) {
  static const auto op =
      find_op<decltype(composite::prefix_cross_entropy)>("refract::prefix_cross_entropy");
  auto [loss, correct] = op.call(x, weight, rows, targets, counts, num_classes);
  return {loss, correct};
}

namespace {

std::tuple<at::Tensor, at::Tensor> meta(const at::Tensor& x, const at::Tensor& weight,
                                        const at::Tensor& rows, const at::Tensor& targets,
                                        const at::Tensor& counts, int64_t num_classes) {
  prefix_cross_entropy_op::check(x, weight, rows, targets, counts, num_classes);
  return {at::empty_symint({x.sym_size(0)}, x.options().dtype(at::kDouble)),
          at::empty_symint({x.sym_size(0)}, rows.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  m.def(
      "prefix_cross_entropy(Tensor x, Tensor weight, Tensor rows, Tensor targets, Tensor counts,"
      " int num_classes) -> (Tensor loss_sum, Tensor num_correct)");
}

TORCH_LIBRARY_IMPL(refract, CompositeExplicitAutograd, m) {
  m.impl("prefix_cross_entropy", &composite::prefix_cross_entropy);
}

TORCH_LIBRARY_IMPL(refract, Meta, m) { m.impl("prefix_cross_entropy", &meta); }

}  // namespace refract
