#include "analysis/peak.h"

#include <gtest/gtest.h>

namespace refract {
namespace peak_test {

TEST(Peak, KnowsDevicesByTheDriversName) {
  const auto bf16 = [](std::string_view name) {
    return peak_flops(name, Arithmetic::kBf16).value_or(0) / 1e12;
  };
  EXPECT_NEAR(bf16("NVIDIA H100 80GB HBM3"), 989, 1);
  EXPECT_NEAR(bf16("NVIDIA H100 PCIe"), 756, 1);
  EXPECT_NEAR(bf16("NVIDIA H100 NVL"), 835, 1);
  EXPECT_NEAR(bf16("NVIDIA H200"), 989, 1);
  EXPECT_NEAR(bf16("NVIDIA GH200 480GB"), 989, 1);
  EXPECT_NEAR(bf16("NVIDIA A100-SXM4-80GB"), 312, 0);
  EXPECT_NEAR(bf16("NVIDIA A100 80GB PCIe"), 312, 0);
  EXPECT_NEAR(bf16("NVIDIA L4"), 121, 0);
  EXPECT_NEAR(bf16("NVIDIA L40S"), 362, 0);
  EXPECT_NEAR(bf16("NVIDIA L40"), 181, 0);
  EXPECT_NEAR(bf16("NVIDIA A10"), 125, 0);
  EXPECT_NEAR(bf16("NVIDIA GeForce RTX 4090"), 165.2, 0.1);
}

TEST(Peak, SaysNothingWhereItDoesNotKnow) {
  EXPECT_FALSE(peak_flops("cpu", Arithmetic::kFp32));
  EXPECT_FALSE(peak_flops("NVIDIA GeForce RTX 4090 Laptop GPU", Arithmetic::kBf16));
  EXPECT_FALSE(peak_flops("NVIDIA A10G", Arithmetic::kBf16));
  EXPECT_FALSE(peak_flops("Tesla V100-SXM2-32GB", Arithmetic::kBf16));
  EXPECT_TRUE(peak_flops("Tesla V100-SXM2-32GB", Arithmetic::kFp16));
  EXPECT_FALSE(model_flops_utilization(1e5, 1e9, "some GPU", Arithmetic::kBf16));
}

TEST(Peak, TensorCoresAreFasterThanPlainFp32) {
  const std::string_view h100 = "NVIDIA H100 80GB HBM3";
  EXPECT_LT(*peak_flops(h100, Arithmetic::kFp32), *peak_flops(h100, Arithmetic::kTf32));
  EXPECT_LT(*peak_flops(h100, Arithmetic::kTf32), *peak_flops(h100, Arithmetic::kBf16));
}

TEST(Peak, UtilizationIsAchievedOverPeak) {
  // 312e12 operations a second on one A100 is everything it has; on two it is half.
  const double tokens = 1e6, per_token = 312e6;
  EXPECT_DOUBLE_EQ(
      *model_flops_utilization(tokens, per_token, "NVIDIA A100-SXM4-40GB", Arithmetic::kBf16), 1.0);
  EXPECT_DOUBLE_EQ(
      *model_flops_utilization(tokens, per_token, "NVIDIA A100-SXM4-40GB", Arithmetic::kBf16, 2),
      0.5);
}

}  // namespace peak_test
}  // namespace refract
