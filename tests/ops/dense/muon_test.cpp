// Samples for tests/parity/test_every_op.py:
// opcheck: muon_(torch.rand(3, 5), torch.rand(3, 5).bfloat16(), torch.rand(3, 5), torch.rand(3, 5),
//   torch.rand(4), torch.zeros(4), 0.95, 0.1, True, 5, False, True)
#include "ops/dense/optimizer/muon.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linalg_svd.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "support/cuda_guard.h"
#include "support/tolerances.h"

namespace refract {
namespace dense_muon_test {

using testing::expect_close;

struct Matrices {
  at::Tensor master, compute, grads, buffer, hyper, control;

  void apply(const Muon& settings) {
    const std::optional<at::Tensor> weights =
        compute.defined() ? std::optional<at::Tensor>(compute) : std::nullopt;
    muon_(MuonInputs{master, weights, grads, buffer, hyper, control, settings});
  }
  Matrices copy(at::Device device) const {
    const auto move = [&](const at::Tensor& t) { return t.defined() ? t.to(device).clone() : t; };
    return {move(master), move(compute), move(grads), move(buffer), move(hyper), move(control)};
  }
};

Matrices make(const std::vector<int64_t>& shape, bool compute = false) {
  Matrices a;
  a.master = at::randn(shape);
  if (compute) a.compute = a.master.to(at::kBFloat16);
  a.grads = at::randn(shape);
  a.buffer = at::zeros(shape);
  a.hyper = at::tensor({0.05, 0.0, 0.0, 0.0}).to(at::kFloat);
  a.control = at::tensor({0.5, 0.0, 0.0, 0.0}).to(at::kFloat);
  return a;
}

Muon settings_of(double momentum, double weight_decay) {
  Muon settings;
  settings.momentum = momentum;
  settings.weight_decay = weight_decay;
  return settings;
}

// The iteration acts on singular values alone: in float64 each of them runs through the polynomial.
at::Tensor by_singular_values(const at::Tensor& update, int64_t steps) {
  auto [u, s, vh] = at::linalg_svd(update.to(at::kDouble), /*full_matrices=*/false);
  s = s / s.norm();
  for (int64_t i = 0; i < steps; ++i) s = 3.4445 * s - 4.7750 * s.pow(3) + 2.0315 * s.pow(5);
  return u.matmul(s.unsqueeze(-1) * vh);
}

TEST(MuonOp, IsItsDefinition) {
  for (const auto& shape : std::vector<std::vector<int64_t>>{{7, 7}, {5, 12}, {12, 5}, {1, 9}}) {
    for (const bool nesterov : {false, true}) {
      Matrices actual = make(shape);
      Muon settings = settings_of(0.9, 0.1);
      settings.nesterov = nesterov;
      at::Tensor weights = actual.master.to(at::kDouble), b = at::zeros_like(weights);
      for (int step = 0; step < 3; ++step) {
        actual.grads = at::randn(shape);
        const at::Tensor g = actual.grads.to(at::kDouble) * 0.5;
        b = 0.9 * b + 0.1 * g;
        const at::Tensor down = by_singular_values(nesterov ? 0.9 * b + 0.1 * g : b, 5);
        const double scale = 0.2 * std::sqrt(static_cast<double>(std::max(shape[0], shape[1])));
        const double lr = actual.hyper[0].item<float>();
        weights = weights * (1 - lr * 0.1) - lr * scale * down;
        actual.apply(settings);
      }
      expect_close(actual.master, weights.to(at::kFloat), "weights");
      expect_close(actual.buffer, b.to(at::kFloat), "buffer");
    }
  }
}

TEST(MuonOp, StepsAreNearlyOrthogonal) {
  for (const bool half : {false, true}) {
    Matrices a = make({40, 96});
    a.master.zero_();
    Muon settings = settings_of(0, 0);
    settings.half = half;
    a.apply(settings);
    const at::Tensor s = at::linalg_svdvals(a.master) / (0.05 * 0.2 * std::sqrt(96.0));
    EXPECT_GT(s.min().item<float>(), 0.6f);
    EXPECT_LT(s.max().item<float>(), 1.3f);
  }
}

TEST(MuonOp, MatricesOfAStackAreApart) {
  Matrices all = make({3, 6, 4});
  std::vector<Matrices> each;
  for (int64_t i = 0; i < 3; ++i) {
    each.push_back({all.master[i].clone(),
                    {},
                    all.grads[i].clone(),
                    all.buffer[i].clone(),
                    all.hyper,
                    all.control});
  }
  all.apply(settings_of(0.9, 0.1));
  for (int64_t i = 0; i < 3; ++i) {
    each[static_cast<size_t>(i)].apply(settings_of(0.9, 0.1));
    expect_close(all.master[i], each[static_cast<size_t>(i)].master, std::to_string(i));
  }
}

TEST(MuonOp, WritesTheComputeTypeAndZeroesGradients) {
  Matrices a = make({6, 10}, /*compute=*/true);
  Muon settings = settings_of(0.9, 0.1);
  settings.zero_grads = true;
  a.apply(settings);
  EXPECT_TRUE(at::equal(a.compute, a.master.to(at::kBFloat16)));
  EXPECT_EQ(a.grads.abs().sum().item<float>(), 0.0f);
}

TEST(MuonOp, NoGradientIsNoStep) {
  Matrices a = make({6, 10});
  const at::Tensor before = a.master.clone();
  a.grads.zero_();
  a.apply(settings_of(0.9, 0));
  EXPECT_TRUE(at::equal(a.master, before));
}

TEST(MuonOp, HaltedItWritesNothing) {
  const Matrices before = make({6, 10}, /*compute=*/true);
  Matrices after = before.copy(at::kCPU);
  after.control[1] = 1.0;
  after.grads.fill_(std::numeric_limits<double>::quiet_NaN());
  Muon settings = settings_of(0.9, 0.1);
  settings.zero_grads = true;
  after.apply(settings);
  EXPECT_TRUE(at::equal(after.master, before.master));
  EXPECT_TRUE(at::equal(after.compute, before.compute));
  EXPECT_TRUE(at::equal(after.buffer, before.buffer));
  EXPECT_TRUE(after.grads.isnan().all().item<bool>());
}

TEST(MuonOp, CudaMatchesCpu) {
  REFRACT_CUDA_OR_SKIP();
  Matrices expected = make({24, 40}, /*compute=*/true), actual = expected.copy(at::kCUDA);
  expected.apply(settings_of(0.9, 0.1));
  actual.apply(settings_of(0.9, 0.1));
  expect_close(actual.master.cpu(), expected.master, "weights");
  expect_close(actual.buffer.cpu(), expected.buffer, "buffer");
}

TEST(MuonOp, RefusesWhatDoesNotFit) {
  const Matrices good = make({4, 6});
  const Muon settings;
  const auto with = [&](const at::Tensor& grads, const at::Tensor& buffer,
                        const at::Tensor& hyper) {
    muon_(MuonInputs{good.master, std::nullopt, grads, buffer, hyper, good.control, settings});
  };
  EXPECT_THROW(with(good.grads, at::zeros({6, 4}), good.hyper), c10::Error);
  EXPECT_THROW(with(good.grads, good.buffer, at::zeros({3})), c10::Error);
  EXPECT_THROW(with(good.grads.to(at::kDouble), good.buffer, good.hyper), c10::Error);
  const at::Tensor flat = at::zeros({24});
  EXPECT_THROW(
      muon_(MuonInputs{flat, std::nullopt, flat, flat, good.hyper, good.control, settings}),
      c10::Error);
}

}  // namespace dense_muon_test
}  // namespace refract
