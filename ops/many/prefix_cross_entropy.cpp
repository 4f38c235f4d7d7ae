// Schema, checks and composite form of prefix_cross_entropy.
#include "ops/many/prefix_cross_entropy.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logsumexp.h>

#include "ops/common/check.h"
#include "ops/common/define.h"

namespace refract {
namespace prefix_cross_entropy_op {

void check(const PrefixCrossEntropyInputs& in) {
  constexpr const char* op = "prefix_cross_entropy";
  check_floating(op, "x", in.x);
  check_like(op, "weight", in.weight, "x", in.x);
  TORCH_CHECK(in.x.dim() == 3, "refract::", op, ": expected x of shape [A, N, C], got ",
              in.x.sym_sizes());
  TORCH_CHECK(in.weight.dim() == 3 && in.weight.sym_size(0) == in.x.sym_size(0) &&
                  in.weight.sym_size(2) == in.x.sym_size(2),
              "refract::", op, ": expected weight of shape [", in.x.sym_size(0), ", Vp, ",
              in.x.sym_size(2), "], got ", in.weight.sym_sizes());
  TORCH_CHECK(in.num_classes >= 1 && in.num_classes <= in.weight.sym_size(1), "refract::", op,
              ": expected num_classes in [1, ", in.weight.sym_size(1),
              "], the rows of weight, got ", in.num_classes);
  TORCH_CHECK(in.rows.dim() == 1, "refract::", op, ": expected rows of shape [P], got ",
              in.rows.sym_sizes());
  const std::pair<const char*, const at::Tensor*> all[] = {
      {"rows", &in.rows}, {"targets", &in.targets}, {"counts", &in.counts}};
  for (const auto& [name, t] : all) {
    check_vector(op, name, *t, in.rows.sym_size(0));
    TORCH_CHECK(t->scalar_type() == at::kLong && t->device() == in.x.device(), "refract::", op,
                ": expected ", name, " to be int64 on ", in.x.device(), " as x, got ",
                t->scalar_type(), " on ", t->device());
  }
}

}  // namespace prefix_cross_entropy_op

namespace composite {

BatchedCrossEntropy prefix_cross_entropy(const PrefixCrossEntropyInputs& in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  prefix_cross_entropy_op::check(in);
  const at::ScalarType wide = in.x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor logits =
      at::bmm(in.x.to(wide), in.weight.narrow(1, 0, in.num_classes).to(wide).transpose(1, 2));
  const at::Tensor lse = logits.to(at::kDouble).logsumexp(-1);
  const at::Tensor best = logits.argmax(-1);
  const at::Tensor mine = logits.flatten(1)
                              .index_select(1, in.rows.mul(in.num_classes).add(in.targets))
                              .to(at::kDouble);
  const at::Tensor loss = lse.index_select(1, in.rows).sub(mine).mul(in.counts);
  const at::Tensor correct = best.index_select(1, in.rows).eq(in.targets).mul(in.counts);
  return {loss.sum(-1), correct.sum(-1)};
}

}  // namespace composite

namespace {

BatchedCrossEntropy meta(const PrefixCrossEntropyInputs& in) {
  prefix_cross_entropy_op::check(in);
  return {at::empty_symint({in.x.sym_size(0)}, in.x.options().dtype(at::kDouble)),
          at::empty_symint({in.x.sym_size(0)}, in.rows.options())};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, prefix_cross_entropy,
         "(Tensor x, Tensor weight, Tensor rows, Tensor targets, Tensor counts, int num_classes)"
         " -> (Tensor loss_sum, Tensor num_correct)")
      .composite<composite::prefix_cross_entropy>()
      .meta<meta>();
}

}  // namespace refract
