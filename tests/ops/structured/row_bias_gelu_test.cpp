// Samples for tests/parity/test_every_op.py:
// opcheck: row_bias_gelu(normal(6, 4), normal(6), True)
// opcheck: row_bias_gelu_backward(plain(6, 4), plain(6, 4), plain(6), False)
#include "ops/structured/row_bias_gelu.h"

#include "ops/dense/activation/activation.h"
#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace structured_row_bias_gelu_test {

using testing::maybe;
using testing::name_of;
using testing::normal;
using testing::Tensors;

Tensors run(const Tensors& in, bool tanh_form) {
  auto [gx, gb] = row_bias_gelu_backward(in[2], in[0], maybe(in[1]), tanh_form);
  return {row_bias_gelu(in[0], maybe(in[1]), tanh_form), gx, gb};
}

// The other op on the transposed matrix.
Tensors expected(const Tensors& in, bool tanh_form) {
  auto [gx, gb] = bias_gelu_backward(in[2].t(), in[0].t(), maybe(in[1]), tanh_form);
  return {bias_gelu(in[0].t(), maybe(in[1]), tanh_form).t().contiguous(), gx.t().contiguous(), gb};
}

template <class F>
void for_all(F f) {
  for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
           {1, 1}, {5, 7}, {64, 4099}, {96, 512}, {3, 20000}, {4, 0}}) {
    for (const bool bias : {false, true}) {
      for (const bool tanh_form : {false, true}) {
        for (const auto dtype : testing::kAllTypes) {
          f(Tensors{normal({rows, columns}, at::kDouble).mul(3).to(dtype),
                    bias ? normal({rows}, dtype) : at::Tensor(), normal({rows, columns}, dtype)},
            tanh_form, c10::str(rows, " x ", columns, bias ? " bias " : " ") + name_of(dtype));
        }
      }
    }
  }
}

TEST(RowGelu, CpuAgreesWithBiasGeluOfTheTranspose) {
  for_all([](const Tensors& in, bool tanh_form, const std::string& what) {
    testing::expect_all_close(run(in, tanh_form), expected(in, tanh_form), what);
  });
}

TEST(RowGelu, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](const Tensors& in, bool tanh_form, const std::string& what) {
    testing::expect_all_close(run(testing::to_cuda(in), tanh_form), run(in, tanh_form), what);
  });
}

TEST(RowGelu, GradientsAreRight) {
  for (const bool tanh_form : {false, true}) {
    testing::expect_gradients(
        [&](const Tensors& t) { return Tensors{row_bias_gelu(t[0], maybe(t[1]), tanh_form)}; },
        {normal({3, 4}, at::kDouble), normal({3}, at::kDouble)}, "row_bias_gelu");
  }
}

TEST(RowGelu, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({3, 4}, at::kFloat);
  EXPECT_THROW(row_bias_gelu(x, normal({4}, at::kFloat), true), c10::Error);
  EXPECT_THROW(row_bias_gelu(normal({3}, at::kFloat), {}, true), c10::Error);
  EXPECT_THROW(row_bias_gelu_backward(normal({4, 3}, at::kFloat), x, {}, true), c10::Error);
}

}  // namespace structured_row_bias_gelu_test
}  // namespace refract
