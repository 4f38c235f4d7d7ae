// block_dense against its definition.
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "transforms/one_layer.h"
#include "transforms/structured/shapes.h"

namespace refract {
namespace block_dense_test {

using testing::expect_same;
using testing::for_all;
using testing::OneLayer;

// The dense matrix of the definition (Wei et al., section 3.1), element by element.
at::Tensor dense_block_dense(const at::Tensor& v, const at::Tensor& u) {
  const int64_t B = v.size(0), r = v.size(1), n = v.size(2), M = u.size(0);
  at::Tensor w = at::zeros({M, B * n}, v.options());
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t k = 0; k < B * n; ++k) {
      for (int64_t f = 0; f < r; ++f) w[i][k] += u[i][(k / n) * r + f] * v[k / n][f][k % n];
    }
  }
  return w;
}

TEST(Structured, BlockDenseEqualsItsDefinition) {
  for_all("block_dense", {2, 4}, 8, [](OneLayer& one, const at::Tensor& x) {
    const at::Tensor dense =
        dense_block_dense(one.value("layer.V.weight"), one.value("layer.U.weight"));
    expect_same(one.forward(x), at::linear(x, dense));
    expect_same(one.layer->merged(), dense);
  });
}

}  // namespace block_dense_test
}  // namespace refract
