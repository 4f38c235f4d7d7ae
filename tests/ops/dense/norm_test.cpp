// Samples for tests/parity/test_every_op.py:
// opcheck: norm(normal(2, 3, 8), normal(8), normal(8), 1e-5, False)
// opcheck: norm(normal(2, 3, 8), normal(8), None, 1e-5, True)
// opcheck: add_norm(normal(2, 3, 8), normal(2, 3, 8), normal(8), normal(8), 1e-5, False)
// opcheck: norm_forward(plain(6, 8), plain(6, 8), plain(8), None, 1e-5, True)
// opcheck: norm_backward(plain(6, 8), plain(6, 8), plain(6, 8), torch.rand(6) + 0.5,
//   torch.rand(6) + 0.5, plain(8), True, False)
#include "ops/dense/norm/norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rms_norm.h>

#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_norm_test {

using testing::identical;
using testing::maybe;
using testing::name_of;
using testing::normal;
using testing::Tensors;

struct Case {
  std::vector<int64_t> shape;
  bool residual, bias, rms;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  const std::vector<std::vector<int64_t>> shapes = {
      {1, 1},    {3, 5, 7},  {4, 64},   {33, 100}, {2, 768},  {5, 257},   {70, 1024}, {3, 1032},
      {2, 2048}, {700, 320}, {2, 5000}, {1, 8192}, {2, 9000}, {2, 0, 64}, {0, 8}};
  for (const auto& shape : shapes) {
    for (const bool residual : {false, true}) {
      all.push_back({shape, residual, true, false});
      all.push_back({shape, residual, false, false});
      all.push_back({shape, residual, false, true});
    }
  }
  return all;
}

std::string describe(const Case& c, at::ScalarType dtype) {
  return "norm " + c10::str(at::IntArrayRef(c.shape)) + (c.residual ? " residual" : "") +
         (c.bias ? " bias" : "") + (c.rms ? " rms " : " ") + name_of(dtype);
}

// x, residual, weight, bias, grad_y, grad_sum.
Tensors inputs(const Case& c, at::ScalarType dtype) {
  const int64_t columns = c.shape.back();
  return {normal(c.shape, dtype),   c.residual ? normal(c.shape, dtype) : at::Tensor(),
          normal({columns}, dtype), c.bias ? normal({columns}, dtype) : at::Tensor(),
          normal(c.shape, dtype),   c.residual ? normal(c.shape, dtype) : at::Tensor()};
}

Tensors list(const NormForwardResult& r) {
  return {std::get<0>(r), std::get<1>(r), std::get<2>(r), std::get<3>(r)};
}
Tensors list(const NormBackwardResult& r) {
  return {std::get<0>(r), std::get<1>(r), std::get<2>(r)};
}

constexpr double kEps = 1e-5;

// A row of one element has no variance, so its gradient is a rounding error times 1 / sqrt(eps).
double allowance(const Case& c) { return c.shape.back() == 1 ? 1 / std::sqrt(kEps) : 1; }

// Both passes; the backward pass always from the composite form's statistics.
template <class Forward, class Backward>
Tensors both(const Case& c, const Tensors& in, Forward forward, Backward backward) {
  Tensors out = list(forward({in[0], maybe(in[1]), in[2], maybe(in[3]), kEps, c.rms}));
  const auto reference =
      composite::norm_forward({in[0], maybe(in[1]), in[2], maybe(in[3]), kEps, c.rms});
  const at::Tensor sum = c.residual ? std::get<1>(reference) : in[0];
  const Tensors gradients = list(backward({in[4], maybe(in[5]), sum, std::get<2>(reference),
                                           std::get<3>(reference), in[2], c.bias, c.rms}));
  out.insert(out.end(), gradients.begin(), gradients.end());
  return out;
}

TEST(Norm, CpuAgreesWithComposite) {
  for (const Case& c : cases()) {
    for (const auto dtype : testing::kAllTypes) {
      const Tensors in = inputs(c, dtype);
      testing::expect_all_close(both(c, in, norm_forward, norm_backward),
                                both(c, in, composite::norm_forward, composite::norm_backward),
                                describe(c, dtype), allowance(c));
    }
  }
}

TEST(Norm, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  for (const Case& c : cases()) {
    for (const auto dtype : testing::kAllTypes) {
      const Tensors in = inputs(c, dtype);
      testing::expect_all_close(both(c, testing::to_cuda(in), norm_forward, norm_backward),
                                both(c, in, composite::norm_forward, composite::norm_backward),
                                describe(c, dtype), allowance(c));
    }
  }
}

TEST(Norm, CudaHandlesUnalignedRows) {
  REFRACT_CUDA_OR_SKIP();
  const Case c{{9, 64}, true, true, false};
  Tensors in = inputs(c, at::kBFloat16);
  const Tensors expected = both(c, in, composite::norm_forward, composite::norm_backward);
  Tensors shifted = testing::to_cuda(in);
  for (auto& t : shifted) {  // contiguous, but two bytes off
    const at::Tensor room = at::empty({t.numel() + 1}, t.options());
    t = room.narrow(0, 1, t.numel()).view(t.sizes()).copy_(t);
  }
  testing::expect_all_close(both(c, shifted, norm_forward, norm_backward), expected, "unaligned");
}

TEST(Norm, CudaRepeatsBitForBit) {
  REFRACT_CUDA_OR_SKIP();
  const Case c{{5000, 768}, true, true, false};
  const Tensors in = testing::to_cuda(inputs(c, at::kBFloat16));
  const Tensors once = both(c, in, norm_forward, norm_backward);
  const Tensors again = both(c, in, norm_forward, norm_backward);
  for (size_t i = 0; i < once.size(); ++i) EXPECT_TRUE(identical(once[i], again[i])) << i;
}

TEST(Norm, AgreesWithTorch) {
  const at::Tensor x = normal({6, 50}, at::kFloat), w = normal({50}, at::kFloat),
                   b = normal({50}, at::kFloat);
  testing::expect_close(norm(x, w, b, kEps, false), at::layer_norm(x, {50}, w, b, kEps), "layer");
  testing::expect_close(norm(x, w, {}, kEps, true), at::rms_norm(x, {50}, w, kEps), "rms");
}

TEST(Norm, GradientsAreRight) {
  for (const bool rms : {false, true}) {
    const Tensors in = {normal({2, 3, 5}, at::kDouble), normal({2, 3, 5}, at::kDouble),
                        normal({5}, at::kDouble), normal({5}, at::kDouble)};
    testing::expect_gradients(
        [rms](const Tensors& t) {
          auto [y, sum] = add_norm(t[0], t[1], t[2], rms ? std::nullopt : maybe(t[3]), kEps, rms);
          return rms ? Tensors{y, sum, t[3]} : Tensors{y, sum};
        },
        in, rms ? "add_norm rms" : "add_norm");
    testing::expect_gradients(
        [rms](const Tensors& t) { return Tensors{norm(t[0], t[1], {}, kEps, rms)}; },
        {in[0], in[2]}, "norm without bias");
  }
}

TEST(Norm, OnlyTheSumIsUsed) {
  at::Tensor x = normal({3, 4}, at::kDouble).requires_grad_(true);
  const at::Tensor residual = normal({3, 4}, at::kDouble), w = normal({4}, at::kDouble);
  const auto [y, sum] = add_norm(x, residual, w, {}, kEps, true);
  const auto g = torch::autograd::grad({sum.sum()}, {x});
  EXPECT_TRUE(g[0].eq(1).all().item<bool>());
}

TEST(Norm, GradientsDoNotDependOnThreads) {
  const Case c{{3000, 65}, true, true, false};
  const Tensors in = inputs(c, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Tensors one = both(c, in, norm_forward, norm_backward);
  at::set_num_threads(2);
  const Tensors two = both(c, in, norm_forward, norm_backward);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(identical(one[i], two[i])) << i;
}

TEST(Norm, TakesStridedInputs) {
  const at::Tensor x = normal({6, 4}, at::kFloat).t(), r = normal({6, 4}, at::kFloat).t();
  const at::Tensor w = normal({12}, at::kFloat).slice(0, 0, 12, 2);
  const auto [y, sum] = add_norm(x, r, w, {}, kEps, false);
  const auto [y2, sum2] = add_norm(x.contiguous(), r.contiguous(), w.contiguous(), {}, kEps, false);
  EXPECT_TRUE(identical(y, y2));
  EXPECT_TRUE(identical(sum, sum2));
}

TEST(Norm, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({2, 4}, at::kFloat), w = normal({4}, at::kFloat);
  EXPECT_THROW(norm(x, normal({5}, at::kFloat), {}, kEps, false), c10::Error);
  EXPECT_THROW(norm(x, normal({4}, at::kDouble), {}, kEps, false), c10::Error);
  EXPECT_THROW(norm(x, w, w, kEps, true), c10::Error);
  EXPECT_THROW(norm(x.to(at::kLong), w, {}, kEps, false), c10::Error);
  EXPECT_THROW(add_norm(x, normal({4, 2}, at::kFloat), w, {}, kEps, false), c10::Error);
  try {
    norm(x, normal({5}, at::kFloat), {}, kEps, false);
  } catch (const c10::Error& error) {
    const std::string said = error.what_without_backtrace();
    EXPECT_NE(said.find("refract::norm: expected weight of shape [4], got [5]"), std::string::npos)
        << said;
  }
}

}  // namespace dense_norm_test
}  // namespace refract
