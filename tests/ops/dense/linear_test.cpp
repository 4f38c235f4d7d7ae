// Samples for tests/parity/test_every_op.py:
// opcheck: linear(normal(2, 16, 32), normal(16, 32), normal(16))
// opcheck: linear(normal(2, 3, 5), normal(7, 5), None)
// opcheck: linear_backward(plain(32, 16), plain(32, 32), plain(16, 32), True, True, False)
#include "ops/dense/linear/linear.h"

#include <ATen/Parallel.h>

#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_linear_test {

using testing::identical;
using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Case {
  int64_t rows, inner, outer;
};
// Our kernels (whole vectors, at least 32 rows, several blocks of rows, tasks of uneven size), and
// BLAS's: few rows, odd widths, a weight that is too large.
const Case kCases[] = {{256, 64, 192}, {256, 256, 64}, {33, 16, 16}, {600, 48, 80},  {257, 32, 144},
                       {8, 64, 64},    {40, 5, 16},    {40, 16, 7},  {40, 512, 528}, {0, 16, 16}};

// A sum of n products carries about sqrt(n) of their rounding errors; both sides have them.
double factor(int64_t n) { return std::max(1.0, 0.25 * std::sqrt(static_cast<double>(n))); }

TEST(Linear, CpuAgreesWithComposite) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      const std::string what = "linear " + std::to_string(c.rows) + " x " +
                               std::to_string(c.inner) + " x " + std::to_string(c.outer) + " " +
                               name_of(dtype);
      const at::Tensor x = normal({c.rows, c.inner}, dtype);
      const at::Tensor weight = normal({c.outer, c.inner}, dtype), bias = normal({c.outer}, dtype);
      const at::Tensor grad = normal({c.rows, c.outer}, dtype);
      testing::expect_close(fused_linear(x, weight, bias), composite::linear({x, weight, bias}),
                            what, factor(c.inner));
      testing::expect_close(fused_linear(x, weight), composite::linear({x, weight, kNoTensor}),
                            what, factor(c.inner));
      const auto [gx, gw, gb] = linear_backward(grad, x, weight, true, true, true);
      const auto [ex, ew, eb] = composite::linear_backward({grad, x, weight, true, true, true});
      testing::expect_all_close({gx, gw, gb}, {ex, ew, eb}, what + " backward",
                                factor(std::max(c.rows, c.outer)));
    }
  }
}

TEST(Linear, MakesOnlyWhatIsNeeded) {
  const at::Tensor x = normal({64, 32}, at::kFloat), weight = normal({16, 32}, at::kFloat);
  const at::Tensor grad = normal({64, 16}, at::kFloat);
  const auto [ax, aw, ab] = linear_backward(grad, x, weight, true, true, true);
  for (int needed = 0; needed < 8; ++needed) {
    const bool need_x = (needed & 1) != 0, need_w = (needed & 2) != 0, need_b = (needed & 4) != 0;
    const auto [gx, gw, gb] = linear_backward(grad, x, weight, need_x, need_w, need_b);
    EXPECT_TRUE(need_x ? identical(gx, ax) : gx.numel() == 0) << needed;
    EXPECT_TRUE(need_w ? identical(gw, aw) : gw.numel() == 0) << needed;
    EXPECT_TRUE(need_b ? identical(gb, ab) : gb.numel() == 0) << needed;
  }
}

TEST(Linear, GradientsAreRight) {
  testing::expect_gradients(
      [](const Tensors& t) { return Tensors{fused_linear(t[0], t[1], t[2])}; },
      {normal({2, 3, 4}, at::kDouble), normal({5, 4}, at::kDouble), normal({5}, at::kDouble)},
      "linear");
  testing::expect_gradients([](const Tensors& t) { return Tensors{fused_linear(t[0], t[1])}; },
                            {normal({3, 4}, at::kDouble), normal({2, 4}, at::kDouble)},
                            "linear without bias");
}

// Autograd hands the kernels' own results on: once with the float kernels.
TEST(Linear, AutogradReachesEveryInput) {
  const at::Tensor x = normal({4, 32, 16}, at::kFloat).requires_grad_(true);
  const at::Tensor weight = normal({48, 16}, at::kFloat).requires_grad_(true);
  const at::Tensor bias = normal({48}, at::kFloat).requires_grad_(true);
  const at::Tensor grad = normal({4, 32, 48}, at::kFloat);
  const auto got =
      torch::autograd::grad({fused_linear(x, weight, bias)}, {x, weight, bias}, {grad});
  const auto [gx, gw, gb] =
      composite::linear_backward({grad, x.detach(), weight.detach(), true, true, true});
  testing::expect_all_close({got[0], got[1], got[2]}, {gx, gw, gb}, "autograd", factor(128));
}

TEST(Linear, DoesNotDependOnTheNumberOfThreads) {
  const at::Tensor x = normal({700, 64}, at::kFloat), weight = normal({192, 64}, at::kFloat);
  const at::Tensor grad = normal({700, 192}, at::kFloat);
  const int threads = at::get_num_threads();
  const auto run = [&](int n) {
    at::set_num_threads(n);
    const auto [gx, gw, gb] = linear_backward(grad, x, weight, true, true, true);
    return Tensors{fused_linear(x, weight), gx, gw, gb};
  };
  const Tensors one = run(1), three = run(3);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(identical(one[i], three[i])) << i;
}

TEST(Linear, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({64, 32}, at::kFloat), weight = normal({16, 32}, at::kFloat);
  EXPECT_THROW(fused_linear(x, weight.t()), c10::Error);
  EXPECT_THROW(fused_linear(x, weight.to(at::kDouble)), c10::Error);
  EXPECT_THROW(fused_linear(x, weight, normal({17}, at::kFloat)), c10::Error);
  EXPECT_THROW(linear_backward(normal({64, 17}, at::kFloat), x, weight, true, true, true),
               c10::Error);
}

}  // namespace dense_linear_test
}  // namespace refract
