// Samples for tests/parity/test_every_op.py:
// opcheck: block_linear(normal(2, 3, 8), normal(4, 5, 2))
// opcheck: block_linear(normal(2, 3, 8), normal(4, 5, 2), True, True)
// opcheck: block_linear(normal(2, 3, 8), normal(4, 5, 2), False, False, True)
// opcheck: block_linear_backward(plain(6, 20), plain(6, 8), plain(4, 5, 2), False, False, (True,
//   True))
// opcheck: transposed_copy(plain(5, 7))
#include "ops/structured/block_linear.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "ops/structured/transposed_copy.h"
#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace structured_block_linear_test {

using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Shape {
  std::vector<int64_t> leading;
  int64_t blocks, in, out;  // features of one block
};

const BlockLayout kLayouts[] = {{false, false, false}, {false, false, true}, {true, false, false},
                                {false, true, false},  {true, true, false},  {true, true, true}};

std::string describe(const Shape& s, BlockLayout l) {
  return c10::str(at::IntArrayRef(s.leading), " B ", s.blocks, " k ", s.in, " m ", s.out,
                  l.interleaved_in ? " in" : "", l.interleaved_out ? " out" : "",
                  l.feature_major ? " feature major " : " ");
}

// {y, grad_x, grad_weight} for in = x, weight, grad.
Tensors run(const Tensors& in, BlockLayout l) {
  auto [gx, gw] =
      block_linear_backward(in[2], in[0], in[1], l.interleaved_in, l.interleaved_out, {true, true});
  return {block_linear(in[0], in[1], l), gx, gw};
}

Tensors run_composite(const Tensors& in, BlockLayout l) {
  auto [gx, gw] = composite::block_linear_backward(
      {in[2], in[0], in[1], l.interleaved_in, l.interleaved_out, {true, true}});
  return {composite::block_linear({in[0], in[1], l}), gx, gw};
}

at::Tensor feature_major(const at::Tensor& x) {
  return x.flatten(0, -2).t().contiguous().t().view(x.sizes());
}

Tensors inputs(const Shape& s, at::ScalarType dtype) {
  auto x = s.leading, y = s.leading;
  x.push_back(s.blocks * s.in);
  y.push_back(s.blocks * s.out);
  return {normal(x, dtype), normal({s.blocks, s.out, s.in}, dtype), normal(y, dtype)};
}

// f(inputs, layout, description), with x in both storage orders.
template <class F>
void for_all(F f) {
  const Shape shapes[] = {{{1}, 2, 3, 4},    {{5}, 1, 4, 2},      {{2, 3}, 3, 5, 7},
                          {{33}, 4, 16, 24}, {{2, 64}, 4, 64, 8}, {{130}, 2, 96, 64},
                          {{0}, 2, 4, 4}};
  for (const Shape& shape : shapes) {
    for (const BlockLayout layout : kLayouts) {
      for (const auto dtype : testing::kAllTypes) {
        Tensors in = inputs(shape, dtype);
        const std::string what = describe(shape, layout) + name_of(dtype);
        f(in, layout, what);
        if (in[0].dim() > 1) {
          in[0] = feature_major(in[0]);
          f(in, layout, what + " from feature major");
        }
      }
    }
  }
}

TEST(BlockLinear, CpuAgreesWithComposite) {
  for_all([](const Tensors& in, BlockLayout layout, const std::string& what) {
    const Tensors actual = run(in, layout), expected = run_composite(in, layout);
    testing::expect_all_close(actual, expected, what);
    if (in[0].numel() <= in[0].size(-1)) return;  // strides of one row and of none mean nothing
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_EQ(actual[i].strides(), expected[i].strides()) << what << ", output " << i;
    }
  });
}

TEST(BlockLinear, CudaAgreesWithComposite) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](const Tensors& in, BlockLayout layout, const std::string& what) {
    const Tensors device = {
        is_feature_major(in[0]) ? feature_major(in[0].to(at::kCUDA)) : in[0].to(at::kCUDA),
        in[1].to(at::kCUDA), in[2].to(at::kCUDA)};
    testing::expect_all_close(run(device, layout), run_composite(in, layout), what);
  });
}

// The definition of a block diagonal product, written out: every feature in its block.
TEST(BlockLinear, EqualsTheDenseProduct) {
  const int64_t B = 3, k = 4, m = 5;
  const Tensors in = inputs({{7}, B, k, m}, at::kDouble);
  for (const BlockLayout layout : kLayouts) {
    at::Tensor dense = at::zeros({B * m, B * k}, in[1].options());
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t o = 0; o < m; ++o) {
        for (int64_t i = 0; i < k; ++i) {
          const int64_t row = layout.interleaved_out ? o * B + b : b * m + o;
          const int64_t column = layout.interleaved_in ? i * B + b : b * k + i;
          dense[row][column].copy_(in[1][b][o][i]);
        }
      }
    }
    testing::expect_close(block_linear(in[0], in[1], layout).contiguous(), at::linear(in[0], dense),
                          "dense");
  }
}

TEST(BlockLinear, GradientsAreRight) {
  for (const BlockLayout layout : kLayouts) {
    const Tensors in = inputs({{2, 3}, 2, 3, 4}, at::kDouble);
    testing::expect_gradients(
        [&](const Tensors& t) { return Tensors{block_linear(t[0], t[1], layout)}; }, {in[0], in[1]},
        "block_linear");
  }
}

// The two products of BlockShuffle hand features over where they lie.
TEST(BlockLinear, FeatureMajorResultsAreViewsOfTheirStorage) {
  const Tensors in = inputs({{2, 8}, 4, 8, 8}, at::kFloat);
  const at::Tensor y = block_linear(in[0], in[1], {.feature_major = true});
  EXPECT_TRUE(is_feature_major(y));
  EXPECT_FALSE(is_feature_major(y.contiguous()));
  EXPECT_TRUE(y.flatten(0, 1).t().is_contiguous());
  const auto [gx, gw] = block_linear_backward(y, y, in[1], /*interleaved_in=*/true,
                                              /*interleaved_out=*/false, {true, false});
  EXPECT_TRUE(is_feature_major(gx));
  EXPECT_FALSE(gw.defined());
}

TEST(TransposedCopy, EqualsTheTranspose) {
  for (const auto dtype : testing::kAllTypes) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{
             {1, 1}, {3, 130}, {64, 64}, {65, 62}, {200, 96}}) {
      const at::Tensor x = normal({rows, columns}, dtype), cut = normal({rows, columns + 3}, dtype);
      for (const at::Tensor& t :
           {x, cut.narrow(1, 1, columns), normal({columns, rows}, dtype).t()}) {
        EXPECT_TRUE(transposed_copy(t).equal(t.t()));
        const at::Tensor bias = normal({rows}, dtype), biased = t.add(bias.unsqueeze(1)).t();
        testing::expect_close(transposed_copy(t, bias), biased.contiguous(), "biased");
        if (!testing::cuda_unavailable().empty()) continue;
        EXPECT_TRUE(transposed_copy(t.to(at::kCUDA)).cpu().equal(t.t()));
        testing::expect_close(transposed_copy(t.to(at::kCUDA), bias.to(at::kCUDA)),
                              biased.contiguous(), "biased on CUDA");
      }
    }
  }
  const at::Tensor x = normal({3, 2}, at::kDouble);
  testing::expect_gradients(
      [](const Tensors& t) {
        return Tensors{transposed_copy(t[0]), transposed_copy(t[0], t[1])};
      },
      {x, normal({3}, at::kDouble)}, "transposed_copy");
}

TEST(BlockLinear, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({2, 6}, at::kFloat), w = normal({2, 4, 3}, at::kFloat);
  EXPECT_THROW(block_linear(x, normal({3, 4, 3}, at::kFloat), {}), c10::Error);
  EXPECT_THROW(block_linear(x, normal({6, 6}, at::kFloat), {}), c10::Error);
  EXPECT_THROW(block_linear(x, w.to(at::kDouble), {}), c10::Error);
  EXPECT_THROW(block_linear(x.to(at::kInt), w.to(at::kInt), {}), c10::Error);
  EXPECT_THROW(block_linear_backward(normal({2, 6}, at::kFloat), x, w, false, false, {true, true}),
               c10::Error);
  EXPECT_THROW(transposed_copy(w), c10::Error);
  EXPECT_THROW(transposed_copy(x, normal({6}, at::kFloat)), c10::Error);
}

}  // namespace structured_block_linear_test
}  // namespace refract
