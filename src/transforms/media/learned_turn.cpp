#include "transforms/media/learned_turn.h"

#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_solve.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/triu_indices.h>
#include <ATen/ops/zeros.h>

namespace refract {
namespace {

int64_t pairs(int64_t block) { return block * (block - 1) / 2; }

}  // namespace

LearnedTurn::LearnedTurn(Build build, const std::string& name, int64_t width, int64_t block)
    : arena_(build.arena),
      above_(build.arena.declare({name, {width / block * pairs(block)}, Init::zeros()})),
      blocks_(width / block),
      block_(block) {}

at::Tensor LearnedTurn::matrices(const at::Tensor& like) const {
  const at::Tensor above = arena_.leaf(above_);
  const at::ScalarType wide = above.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return cayley(above.to(wide).view({blocks_, pairs(block_)}), block_).to(like.scalar_type());
}

at::Tensor LearnedTurn::apply(const at::Tensor& x, const at::Tensor& matrices) {
  const at::Tensor rows = x.reshape({-1, matrices.size(0), matrices.size(1)}).transpose(0, 1);
  return at::matmul(rows, matrices).transpose(0, 1).reshape(x.sizes());
}

at::Tensor LearnedTurn::invert(const at::Tensor& y, const at::Tensor& matrices) {
  return apply(y, matrices.transpose(1, 2));
}

at::Tensor cayley(const at::Tensor& above, int64_t block) {
  const at::Tensor places = at::triu_indices(block, block, 1, above.options().dtype(at::kLong));
  const at::Tensor flat = places.select(0, 0).mul(block).add(places.select(0, 1));
  const at::Tensor upper = at::zeros({above.size(0), block * block}, above.options())
                               .index_copy(1, flat, above)
                               .view({above.size(0), block, block});
  const at::Tensor skew = upper.sub(upper.transpose(1, 2));
  const at::Tensor one = at::eye(block, above.options());
  return at::linalg_solve(one.add(skew), one.sub(skew));
}

}  // namespace refract
