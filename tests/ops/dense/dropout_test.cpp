// Samples for tests/parity/test_every_op.py:
// opcheck: dropout(normal(4, 8), 0.3, 1, 2, torch.tensor([3, 8]))
#include "ops/dense/activation/dropout.h"

#include <ATen/Parallel.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>

#include "ops/common/philox.h"
#include "support/compare.h"
#include "support/gradcheck.h"

namespace refract {
namespace dense_dropout_test {

using testing::identical;
using testing::name_of;
using testing::normal;
using testing::Tensors;

at::Tensor clock_of(int64_t step, int64_t first) {
  return at::tensor({step, first}, at::TensorOptions().dtype(at::kLong));
}

template <class F>
void for_all(F f) {
  for (const int64_t n : {0, 1, 3, 8, 1023, 1024, 4097, 70001}) {
    for (const int64_t first : {int64_t{0}, int64_t{3}, int64_t{1} << 33}) {
      for (const auto dtype : testing::kAllTypes) {
        f(normal({n}, dtype), clock_of(first % 7 + (int64_t{5} << 32), first),
          "dropout of " + std::to_string(n) + " from " + std::to_string(first) + " " +
              name_of(dtype));
      }
    }
  }
}

TEST(Dropout, CpuAgreesWithComposite) {
  for_all([](const at::Tensor& x, const at::Tensor& clock, const std::string& what) {
    const at::Tensor actual = dropout(x, 0.3, 17, -4, clock);
    const at::Tensor expected = composite::dropout({x, 0.3, 17, -4, clock});
    EXPECT_TRUE(actual.eq(0).equal(expected.eq(0))) << what << ": another mask";
    testing::expect_close(actual, expected, what);
  });
}

TEST(Dropout, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all([](const at::Tensor& x, const at::Tensor& clock, const std::string& what) {
    const at::Tensor actual = dropout(x.to(at::kCUDA), 0.3, 17, -4, clock.to(at::kCUDA));
    const at::Tensor expected = dropout(x, 0.3, 17, -4, clock);
    EXPECT_TRUE(actual.to(at::kCPU).eq(0).equal(expected.eq(0))) << what << ": another mask";
    testing::expect_close(actual, expected, what);
  });
}

TEST(Dropout, EveryElementIsPhiloxs) {
  const at::Tensor y = dropout(at::ones({501}), 0.25, 9, 2, clock_of(4, 1001));
  for (int64_t i = 0; i < 501; ++i) {
    const bool keep =
        philox_uniform(philox_word(philox_key(9, 2), 4, static_cast<uint64_t>(1001 + i))) >= 0.25f;
    EXPECT_FLOAT_EQ(y.data_ptr<float>()[i], keep ? 4.0f / 3.0f : 0.0f) << i;
  }
}

TEST(Dropout, PartsOfABatchDrawWhatTheWholeDraws) {
  const at::Tensor x = normal({3000}, at::kFloat);
  const at::Tensor whole = dropout(x, 0.5, 1, 2, clock_of(3, 0));
  const at::Tensor part = dropout(x.narrow(0, 1001, 1500), 0.5, 1, 2, clock_of(3, 1001));
  EXPECT_TRUE(identical(part, whole.narrow(0, 1001, 1500)));
  EXPECT_FALSE(identical(whole, dropout(x, 0.5, 1, 2, clock_of(4, 0))));
  EXPECT_FALSE(identical(whole, dropout(x, 0.5, 1, 3, clock_of(3, 0))));
  EXPECT_FALSE(identical(whole, dropout(x, 0.5, 2, 2, clock_of(3, 0))));
}

TEST(Dropout, DoesNotDependOnThreads) {
  const at::Tensor x = normal({100003}, at::kFloat);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = dropout(x, 0.1, 1, 2, clock_of(3, 5));
  at::set_num_threads(2);
  const at::Tensor two = dropout(x, 0.1, 1, 2, clock_of(3, 5));
  at::set_num_threads(threads);
  EXPECT_TRUE(identical(one, two));
}

TEST(Dropout, KeepsTheRightShare) {
  const at::Tensor y = dropout(at::ones({1000000}), 0.2, 5, 6, clock_of(0, 0));
  EXPECT_NEAR(y.ne(0).to(at::kDouble).mean().item<double>(), 0.8, 0.002);  // five deviations
  EXPECT_TRUE(identical(dropout(at::ones({10}), 0.0, 5, 6, clock_of(0, 0)), at::ones({10})));
}

TEST(Dropout, GradientsAreRight) {
  const at::Tensor clock = clock_of(2, 7);
  testing::expect_gradients(
      [&](const Tensors& t) { return Tensors{dropout(t[0], 0.4, 3, 4, clock)}; },
      {normal({5, 6}, at::kDouble)}, "dropout");
}

TEST(Dropout, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({4}, at::kFloat);
  EXPECT_THROW(dropout(x, 1.0, 0, 0, clock_of(0, 0)), c10::Error);
  EXPECT_THROW(dropout(x, -0.1, 0, 0, clock_of(0, 0)), c10::Error);
  EXPECT_THROW(dropout(x, 0.1, 0, 0, at::ones({2})), c10::Error);
  EXPECT_THROW(dropout(x.to(at::kLong), 0.1, 0, 0, clock_of(0, 0)), c10::Error);
}

}  // namespace dense_dropout_test
}  // namespace refract
