// Samples for tests/parity/test_every_op.py:
// opcheck: sgd_(torch.rand(9), torch.rand(9).bfloat16(), torch.rand(9), torch.rand(9),
//   torch.rand(4), torch.zeros(4), 0.9, 0.1, 5, True, True)
#include "ops/dense/optimizer/sgd.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <limits>
#include <optional>
#include <string>

#include "support/cuda_guard.h"
#include "support/tolerances.h"

namespace refract {
namespace dense_sgd_test {

using testing::expect_close;

struct Arenas {
  at::Tensor master, compute, grads, buffer, hyper, control;

  void apply(const Sgd& settings, bool by_composite) {
    const std::optional<at::Tensor> weights =
        compute.defined() ? std::optional<at::Tensor>(compute) : std::nullopt;
    const SgdInputs in{master, weights, grads, buffer, hyper, control, settings};
    by_composite ? composite::sgd_(in) : sgd_(in);
  }
  Arenas copy(at::Device device) const {
    const auto move = [&](const at::Tensor& t) { return t.defined() ? t.to(device).clone() : t; };
    return {move(master), move(compute), move(grads), move(buffer), move(hyper), move(control)};
  }
};

Arenas make(int64_t n, at::ScalarType grads, bool compute) {
  Arenas a;
  a.master = at::randn({n});
  if (compute) a.compute = a.master.to(at::kBFloat16);
  a.grads = at::randn({n}).to(grads);
  a.buffer = at::randn({n});
  a.hyper = at::tensor({0.05, 0.0, 0.0, 0.0}).to(at::kFloat);
  a.control = at::tensor({0.7, 0.0, 0.0, 0.0}).to(at::kFloat);
  return a;
}

void compare(at::Device device) {
  for (const int64_t n : {1, 1023, 70001}) {
    for (const auto grads : {at::kFloat, at::kBFloat16, at::kHalf}) {
      for (const bool nesterov : {false, true}) {
        Arenas expected = make(n, grads, nesterov);
        const Sgd settings{0.9, 0.1, n / 2 + 1, nesterov, nesterov};
        Arenas actual = expected.copy(device);
        for (int step = 0; step < 3; ++step) {
          expected.apply(settings, /*by_composite=*/true);
          actual.apply(settings, /*by_composite=*/false);
        }
        const std::string what = "n=" + std::to_string(n) + " " + c10::toString(grads);
        expect_close(actual.master.cpu(), expected.master, what + " master");
        expect_close(actual.buffer.cpu(), expected.buffer, what + " buffer");
        EXPECT_TRUE(at::equal(actual.grads.cpu(), expected.grads)) << what;
        if (!actual.compute.defined()) continue;
        EXPECT_TRUE(at::equal(actual.compute, actual.master.to(at::kBFloat16))) << what;
        EXPECT_EQ(actual.grads.to(at::kFloat).abs().sum().item<float>(), 0.0f) << what;
      }
    }
  }
}

TEST(SgdOp, CpuMatchesComposite) { compare(at::kCPU); }

TEST(SgdOp, CudaMatchesComposite) {
  REFRACT_CUDA_OR_SKIP();
  compare(at::kCUDA);
}

TEST(SgdOp, HaltedItWritesNothing) {
  Arenas before = make(1001, at::kBFloat16, true);
  before.control[1] = 1.0;
  for (const bool by_composite : {false, true}) {
    Arenas after = before.copy(at::kCPU);
    after.grads.fill_(std::numeric_limits<double>::quiet_NaN());
    after.apply({0.9, 0.1, 500, true, true}, by_composite);
    EXPECT_TRUE(at::equal(after.master, before.master));
    EXPECT_TRUE(at::equal(after.compute, before.compute));
    EXPECT_TRUE(at::equal(after.buffer, before.buffer));
    EXPECT_TRUE(after.grads.isnan().all().item<bool>());
  }
}

TEST(SgdOp, RefusesWhatDoesNotFit) {
  const Arenas good = make(8, at::kFloat, false);
  const Sgd settings;
  EXPECT_THROW(sgd_(good.master, std::nullopt, good.grads, at::zeros({7}), good.hyper, good.control,
                    settings),
               c10::Error);
  EXPECT_THROW(sgd_(good.master, std::nullopt, good.grads, good.buffer, at::zeros({3}),
                    good.control, settings),
               c10::Error);
  EXPECT_THROW(sgd_(good.master, std::nullopt, good.grads.to(at::kDouble), good.buffer, good.hyper,
                    good.control, settings),
               c10::Error);
}

}  // namespace dense_sgd_test
}  // namespace refract
