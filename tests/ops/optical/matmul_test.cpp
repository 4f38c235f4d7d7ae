// optical_matmul: the kernels against the composite form, gradients against the dense product.
//
// Samples for tests/parity/test_every_op.py:
// opcheck: optical_matmul(normal(2, 3, 5), normal(2, 5, 4), unset(), unset(), unset(),
//   train=True, noise=True, clock=torch.tensor([3, 8]), streams=[1])
// opcheck: optical_matmul_forward(plain(2, 3, 5), plain(2, 5, 4), unset(), unset(), unset(),
//   noise=True, clock=torch.tensor([3, 8]), streams=[1])
#include "ops/optical/matmul/matmul.h"

#include <ATen/ops/matmul.h>
#include <torch/csrc/autograd/autograd.h>

#include "ops/optical/inputs.h"
#include "ops/optical/levels.h"
#include "support/compare.h"

namespace refract {
namespace optical_matmul_test {

using testing::clock_of;
using testing::distance;
using testing::expect_levels;
using testing::identical;
using testing::kKernelTypes;
using testing::name_of;
using testing::normal;
using testing::share_of;
using testing::step_of;
using testing::unset;

struct Matmul {
  at::Tensor a_range = unset(), b_range = unset(), out_range = unset();
  OpticalSettings settings;
  Matmul() {
    settings.train = true;
    settings.noise = true;
    settings.clock = clock_of(2, 5);
    settings.streams = {17};
  }
  Matmul to(at::DeviceType device) const {
    Matmul copy = *this;
    copy.a_range = a_range.to(device).clone();
    copy.b_range = b_range.to(device).clone();
    copy.out_range = out_range.to(device).clone();
    copy.settings.clock = settings.clock->to(device);
    return copy;
  }
  at::Tensor operator()(const at::Tensor& a, const at::Tensor& b) {
    return optical_matmul(a, b, a_range, b_range, out_range, settings);
  }
  at::Tensor composite(const at::Tensor& a, const at::Tensor& b) {
    return composite::optical_matmul({a, b, a_range, b_range, out_range, settings});
  }
};

void compare_matmuls(at::DeviceType device) {
  for (const auto dtype : kKernelTypes) {
    for (const auto& sizes :
         std::vector<std::vector<int64_t>>{{33, 24, 40}, {2, 3, 16, 64, 24}, {4, 9, 7, 11}}) {
      const size_t n = sizes.size();
      const at::IntArrayRef lead(sizes.data(), n - 3);
      std::vector<int64_t> a_sizes(lead.begin(), lead.end()), b_sizes(lead.begin(), lead.end());
      a_sizes.insert(a_sizes.end(), {sizes[n - 3], sizes[n - 2]});
      b_sizes.insert(b_sizes.end(), {sizes[n - 1], sizes[n - 2]});
      const at::Tensor a = normal(a_sizes, dtype).add(0.3);
      const at::Tensor b = normal(b_sizes, dtype).transpose(-1, -2);
      Matmul reference, tested = reference.to(device);
      for (int call = 0; call < 3; ++call) {
        const std::string what =
            name_of(dtype) + " " + std::to_string(n) + " dimensions, call " + std::to_string(call);
        if (call > 0) tested.out_range.copy_(reference.out_range);
        const at::Tensor expected = reference.composite(a.mul(1 + call), b);
        const at::Tensor actual = tested(a.mul(1 + call).to(device), b.to(device));
        const double shift = call > 0 ? 0 : distance(tested.out_range, reference.out_range);
        expect_levels(actual, expected, step_of(reference.out_range, 256),
                      shift > 0 ? 1 : share_of(dtype, device), what, shift);
        EXPECT_TRUE(identical(tested.a_range.cpu(), reference.a_range)) << what;
        EXPECT_TRUE(identical(tested.b_range.cpu(), reference.b_range)) << what;
      }
    }
  }
}

TEST(OpticalMatmul, CpuAgreesWithTheComposite) { compare_matmuls(at::kCPU); }

TEST(OpticalMatmul, CudaAgreesWithTheComposite) {
  REFRACT_CUDA_OR_SKIP();
  compare_matmuls(at::kCUDA);
}

TEST(OpticalMatmul, GradientsAreTheDenseProducts) {
  for (const auto dtype : testing::kAllTypes) {
    Matmul product;
    const at::Tensor a = normal({2, 5, 8}, dtype).requires_grad_(true);
    const at::Tensor b = normal({2, 8, 6}, dtype).requires_grad_(true),
                     g = normal({2, 5, 6}, dtype);
    testing::expect_all_close(torch::autograd::grad({product(a, b)}, {a, b}, {g}),
                              torch::autograd::grad({at::matmul(a, b)}, {a, b}, {g}),
                              name_of(dtype));
  }
}

TEST(OpticalMatmul, RefusesWhatDoesNotFit) {
  Matmul product;
  EXPECT_THROW(product(normal({2, 5, 8}, at::kFloat), normal({2, 7, 6}, at::kFloat)), c10::Error);
  EXPECT_THROW(product(normal({2, 5, 8}, at::kFloat), normal({3, 8, 6}, at::kFloat)), c10::Error);
  EXPECT_THROW(product(normal({5}, at::kFloat), normal({5}, at::kFloat)), c10::Error);
}

}  // namespace optical_matmul_test
}  // namespace refract
