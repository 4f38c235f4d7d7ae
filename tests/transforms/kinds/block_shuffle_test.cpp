// block_shuffle against its definition, and its orthonormal start.
#include <ATen/ops/eye.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "transforms/one_layer.h"
#include "transforms/structured/shapes.h"

namespace refract {
namespace block_shuffle_test {

using testing::expect_same;
using testing::for_all;
using testing::OneLayer;

// The dense matrix of the definition (Wei et al., section 3.1), element by element.
at::Tensor dense_block_shuffle(const at::Tensor& v, const at::Tensor& u) {
  const int64_t B = v.size(0), h = v.size(1), n = v.size(2), m = u.size(1);
  at::Tensor w = at::zeros({B * m, B * n}, v.options());
  for (int64_t k = 0; k < B * n; ++k) {
    for (int64_t row = 0; row < h; ++row) {
      const int64_t feature = (k / n) * h + row;                  // of the first product
      const int64_t block = feature % B, position = feature / B;  // where the shuffle puts it
      for (int64_t j = 0; j < m; ++j) {
        w[j * B + block][k] += u[block][j][position] * v[k / n][row][k % n];
      }
    }
  }
  return w;
}

// Also where B squared doesn't divide the inner features, so that blocks share unequal numbers of
// them.
TEST(Structured, BlockShuffleEqualsItsDefinition) {
  for_all("block_shuffle", {2, 4}, 0, [](OneLayer& one, const at::Tensor& x) {
    const at::Tensor dense =
        dense_block_shuffle(one.value("layer.V.weight"), one.value("layer.U.weight"));
    expect_same(one.forward(x), at::linear(x, dense));
    expect_same(one.layer->merged(), dense);
  });
}

TEST(Structured, OrthonormalStartsAreOrthonormalPerBlock) {
  OneLayer one(R"({"kind": "block_shuffle", "blocks": 2})", 8, 16);
  for (const char* name : {"layer.V.weight", "layer.U.weight"}) {
    const at::Tensor w = one.value(name);
    const at::Tensor gram =
        w.size(1) < w.size(2) ? at::matmul(w, w.transpose(1, 2)) : at::matmul(w.transpose(1, 2), w);
    for (int64_t b = 0; b < 2; ++b) {
      expect_same(gram[b], at::eye(gram.size(1), gram.options()));
    }
  }
}

}  // namespace block_shuffle_test
}  // namespace refract
