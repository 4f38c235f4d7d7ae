// The one table of how closely two forms of an op agree, per device and element type, and the
// comparison that uses it. A test that needs more names its own factor and says why.
#pragma once
#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <string>

namespace refract::testing {

struct Tolerance {
  double relative;
  double absolute;  // in units of the expected tensor's largest magnitude, at least 1
};

inline Tolerance tolerance(at::DeviceType device, at::ScalarType dtype) {
  const bool cuda = device == at::kCUDA;
  switch (dtype) {
    case at::kDouble:
      return {1e-12, 1e-12};
    case at::kFloat:
      return cuda ? Tolerance{2e-5, 4e-6} : Tolerance{1e-5, 2e-6};
    case at::kHalf:
      return {2e-3, 1e-3};
    default:
      return {1.6e-2, 8e-3};  // bfloat16: two units in the last place
  }
}

// |actual - expected| <= factor * (relative |expected| + absolute * max(1, max|expected|)), and
// equal shapes and types. The tolerance is that of actual's device.
inline void expect_close(const at::Tensor& actual, const at::Tensor& expected,
                         const std::string& what, double factor = 1.0) {
  ASSERT_TRUE(actual.defined() && expected.defined()) << what;
  ASSERT_EQ(actual.sizes(), expected.sizes()) << what;
  ASSERT_EQ(actual.scalar_type(), expected.scalar_type()) << what;
  if (actual.numel() == 0) return;
  const Tolerance allowed = tolerance(actual.device().type(), actual.scalar_type());
  const at::Tensor a = actual.detach().to(at::kCPU, at::kDouble);
  const at::Tensor e = expected.detach().to(at::kCPU, at::kDouble);
  ASSERT_EQ(a.isnan().sum().item<int64_t>(), e.isnan().sum().item<int64_t>()) << what << ": NaNs";
  const double scale = std::max(1.0, e.abs().max().item<double>());
  const at::Tensor limit = e.abs().mul(allowed.relative).add(allowed.absolute * scale).mul(factor);
  const at::Tensor difference = a.sub(e).abs();
  const at::Tensor excess = difference.sub(limit);
  const int64_t worst = excess.argmax().item<int64_t>();
  EXPECT_LE(excess.max().item<double>(), 0.0)
      << what << ": element " << worst << " of " << e.numel() << " is "
      << a.flatten()[worst].item<double>() << ", expected " << e.flatten()[worst].item<double>()
      << " within " << limit.flatten()[worst].item<double>();
}

}  // namespace refract::testing
