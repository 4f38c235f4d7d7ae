// Samples for tests/parity/test_every_op.py:
// opcheck: adamw_(torch.rand(9), torch.rand(9).bfloat16(), torch.rand(9), torch.rand(9),
//   torch.rand(9), torch.rand(4), torch.zeros(4), 0.9, 0.95, 1e-8, 0.1, 5, True)
// opcheck: global_norm(plain(9))
// opcheck: accumulate_(plain(9), plain(9).bfloat16())
// opcheck: step_control_(torch.zeros(4), torch.tensor(2.0), torch.tensor(1.0), 1.0,
//   torch.tensor([3]))
#include "ops/dense/optimizer/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "support/cuda_guard.h"
#include "support/tolerances.h"

namespace refract {
namespace dense_optimizer_test {

using testing::expect_close;

struct Arenas {
  at::Tensor master, compute, grads, exp_avg, exp_avg_sq, hyper, control;

  void apply(const AdamW& settings, bool by_composite = false) {
    const std::optional<at::Tensor> weights =
        compute.defined() ? std::optional<at::Tensor>(compute) : std::nullopt;
    const AdamWInputs in{master, weights, grads, exp_avg, exp_avg_sq, hyper, control, settings};
    by_composite ? composite::adamw_(in) : adamw_(in);
  }
  Arenas copy(at::Device device) const {
    auto move = [&](const at::Tensor& t) { return t.defined() ? t.to(device).clone() : t; };
    return {move(master),     move(compute), move(grads),  move(exp_avg),
            move(exp_avg_sq), move(hyper),   move(control)};
  }
};

void set_hyper(Arenas& a, double lr, int64_t t, const AdamW& s) {
  a.hyper.copy_(
      at::tensor({lr, 1 - std::pow(s.beta1, t), 1 - std::pow(s.beta2, t), 0.0}).to(at::kFloat));
}

Arenas make(int64_t n, at::ScalarType grad_dtype, at::ScalarType compute_dtype, bool compute) {
  Arenas a;
  a.master = at::randn({n});
  if (compute) a.compute = a.master.to(compute_dtype, false, /*copy=*/true);
  a.grads = at::randn({n}).to(grad_dtype);
  a.exp_avg = at::randn({n}) * 0.1;
  a.exp_avg_sq = at::randn({n}).abs() * 0.1;
  a.hyper = at::zeros({4});
  a.control = at::zeros({4});
  a.control[0] = 0.7;
  return a;
}

void expect_same_arenas(const Arenas& actual, const Arenas& expected, const std::string& what) {
  expect_close(actual.master, expected.master, what + " master");
  expect_close(actual.exp_avg, expected.exp_avg, what + " exp_avg");
  expect_close(actual.exp_avg_sq, expected.exp_avg_sq, what + " exp_avg_sq");
  if (actual.compute.defined()) {
    expect_close(actual.compute, expected.compute, what + " compute");
    EXPECT_TRUE(at::equal(actual.compute, actual.master.to(actual.compute.scalar_type()))) << what;
  }
  EXPECT_TRUE(at::equal(actual.grads.cpu(), expected.grads.cpu())) << what;
}

// Runs three steps on both; n includes sizes that are no multiple of a vector.
void compare(at::Device device, bool kernel_is_composite = false) {
  for (const int64_t n : {1, 3, 4, 1023, 70001}) {
    for (const auto grad : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const int kind : {0, 1, 2, 3}) {
        const at::ScalarType types[] = {at::kFloat, at::kBFloat16, at::kHalf, at::kFloat};
        Arenas expected = make(n, grad, types[kind], kind != 0);
        AdamW s{0.9, 0.95, 1e-8, 0.1, n / 2 + 1, kind == 1};
        Arenas actual = expected.copy(device);
        for (int64_t t = 1; t <= 3; ++t) {
          set_hyper(expected, 1e-2, t, s);
          set_hyper(actual, 1e-2, t, s);
          if (s.zero_grads) {
            expected.grads.fill_(0.25);
            actual.grads.fill_(0.25);
          }
          expected.apply(s, /*by_composite=*/true);
          actual.apply(s, kernel_is_composite);
        }
        expect_same_arenas(
            actual, expected.copy(device),
            "n=" + std::to_string(n) + " " + c10::toString(grad) + " kind " + std::to_string(kind));
        if (s.zero_grads) {
          EXPECT_EQ(actual.grads.to(at::kFloat).abs().sum().item<float>(), 0.0f);
        }
      }
    }
  }
}

TEST(Optimizer, CpuMatchesComposite) { compare(at::kCPU); }

TEST(Optimizer, CudaMatchesComposite) {
  REFRACT_CUDA_OR_SKIP();
  compare(at::kCUDA);
  compare(at::kCUDA, /*kernel_is_composite=*/true);
}

void halted_writes_nothing(at::Device device) {
  Arenas before = make(1001, at::kBFloat16, at::kBFloat16, true);
  before.control[1] = 1.0;
  AdamW s;
  s.zero_grads = true;
  set_hyper(before, 1e-2, 1, s);
  for (const bool by_composite : {false, true}) {
    Arenas after = before.copy(device);
    after.grads.fill_(std::numeric_limits<double>::quiet_NaN());
    after.apply(s, by_composite);
    EXPECT_TRUE(at::equal(after.master.cpu(), before.master));
    EXPECT_TRUE(at::equal(after.compute.cpu(), before.compute));
    EXPECT_TRUE(at::equal(after.exp_avg.cpu(), before.exp_avg));
    EXPECT_TRUE(at::equal(after.exp_avg_sq.cpu(), before.exp_avg_sq));
    EXPECT_TRUE(after.grads.isnan().all().item<bool>());
  }
}

TEST(Optimizer, HaltedWritesNothing) { halted_writes_nothing(at::kCPU); }
TEST(Optimizer, CudaHaltedWritesNothing) {
  REFRACT_CUDA_OR_SKIP();
  halted_writes_nothing(at::kCUDA);
}

// With a gradient of one sign, the first step moves every weight by lr (Kingma and Ba,
// section 2.1).
TEST(Optimizer, FirstStepIsTheLearningRate) {
  Arenas a = make(64, at::kFloat, at::kFloat, false);
  a.exp_avg.zero_();
  a.exp_avg_sq.zero_();
  a.control[0] = 1.0;
  AdamW s;
  s.weight_decay = 0;
  set_hyper(a, 1e-3, 1, s);
  const at::Tensor before = a.master.clone(), sign = a.grads.sign();
  a.apply(s);
  expect_close(a.master, before - sign * 1e-3, "first step");
}

void norms(at::Device device) {
  for (const int64_t n : {0, 1, 7, 65536, 300001}) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const at::Tensor flat = at::randn({n}).to(dtype).to(device);
      const at::Tensor norm = global_norm(flat);
      const at::Tensor exact = flat.to(at::kDouble).pow(2).sum().sqrt().to(at::kFloat);
      expect_close(norm, exact, "norm of " + std::to_string(n));
      expect_close(composite::global_norm({flat}), exact, "composite norm");
      EXPECT_TRUE(at::equal(norm, global_norm(flat)));
      if (n > 8)
        expect_close(global_norm(flat.narrow(0, 1, n - 1)),
                     flat.narrow(0, 1, n - 1).to(at::kDouble).pow(2).sum().sqrt().to(at::kFloat),
                     "misaligned norm");
    }
  }
}

TEST(Optimizer, GlobalNorm) { norms(at::kCPU); }
TEST(Optimizer, CudaGlobalNorm) {
  REFRACT_CUDA_OR_SKIP();
  norms(at::kCUDA);
}

template <class StepControl>
void control(at::Device device, StepControl f) {
  const at::Tensor state = at::zeros({4}).to(device);
  const at::Tensor step = at::zeros({1}, at::TensorOptions().dtype(at::kLong)).to(device);
  const at::Tensor loss = at::ones({}).to(device);
  auto scalar = [&](double x) { return (at::ones({}) * x).to(device); };
  auto at_index = [&](int i) { return state[i].item<float>(); };
  f({state, scalar(4.0), loss, 1.0, step.fill_(1)});
  EXPECT_FLOAT_EQ(at_index(0), 1.0f / (4.0f + 1e-6f));
  EXPECT_EQ(at_index(1), 0.0f);
  f({state, scalar(0.5), loss, 1.0, step.fill_(2)});
  EXPECT_EQ(at_index(0), 1.0f);
  f({state, scalar(400.0), loss, 0.0, step.fill_(3)});
  EXPECT_EQ(at_index(0), 1.0f);
  f({state, scalar(std::numeric_limits<double>::infinity()), loss, 1.0, step.fill_(4)});
  EXPECT_EQ(at_index(1), 1.0f);
  EXPECT_EQ(at_index(2), 4.0f);
  f({state, scalar(std::numeric_limits<double>::quiet_NaN()), loss, 1.0, step.fill_(5)});
  EXPECT_EQ(at_index(2), 4.0f) << "the first bad step is kept";
  f({state, scalar(1.0), loss, 1.0, step.fill_(6)});
  EXPECT_EQ(at_index(1), 1.0f) << "halted for good";
  state.zero_();
  f({state, scalar(1.0), scalar(std::numeric_limits<double>::quiet_NaN()), 1.0, step.fill_(7)});
  EXPECT_EQ(at_index(1), 1.0f);
  EXPECT_EQ(at_index(2), 7.0f);
}

TEST(Optimizer, StepControl) {
  control(at::kCPU, step_control_);
  control(at::kCPU, composite::step_control_);
}
TEST(Optimizer, CudaStepControl) {
  REFRACT_CUDA_OR_SKIP();
  control(at::kCUDA, step_control_);
  control(at::kCUDA, composite::step_control_);
}

void accumulation(at::Device device) {
  for (const int64_t n : {0, 1, 5, 2048, 100003}) {
    for (const auto dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
      const at::Tensor sum = at::randn({n}).to(device), part = at::randn({n}).to(dtype).to(device);
      const at::Tensor expected = sum + part.to(at::kFloat);
      accumulate_(sum, part);
      EXPECT_TRUE(at::equal(sum, expected)) << n;
      EXPECT_TRUE(at::equal(part, at::zeros_like(part))) << n;
    }
  }
}

TEST(Optimizer, Accumulate) { accumulation(at::kCPU); }
TEST(Optimizer, CudaAccumulate) {
  REFRACT_CUDA_OR_SKIP();
  accumulation(at::kCUDA);
}

TEST(Optimizer, BadArgumentsAreNamed) {
  Arenas a = make(8, at::kFloat, at::kFloat, false);
  AdamW s;
  s.n_decay = 9;
  EXPECT_THROW(a.apply(s), c10::Error);
  s.n_decay = 0;
  a.grads = at::randn({9});
  EXPECT_THROW(a.apply(s), c10::Error);
  EXPECT_THROW(global_norm(at::randn({3}).to(at::kDouble)), c10::Error);
}

}  // namespace dense_optimizer_test
}  // namespace refract
