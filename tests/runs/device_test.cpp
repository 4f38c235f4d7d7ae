#include "runs/device.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "ops/common/cuda_runtime.h"

namespace refract {
namespace device_test {

TEST(Device, TheCpuIsTakenWithTheThreadsOfTheSettings) {
  const int before = at::get_num_threads();
  RunConfig config;
  config.train.device = "cpu";
  config.train.threads = 2;
  const at::Device device = open_device(config);
  EXPECT_TRUE(device.is_cpu());
  EXPECT_EQ(at::get_num_threads(), 2);
  EXPECT_EQ(device_name(device), "CPU (2 threads)");
  const std::string key = device_key(device);
  EXPECT_TRUE(key.ends_with(", 2 threads")) << key;
  EXPECT_GT(key.size(), std::string(", 2 threads").size());  // the processor stands before it
  at::set_num_threads(before);
}

TEST(Device, AutoTakesAGpuWhereThereIsOne) {
  RunConfig config;
  config.train.device = "auto";
  EXPECT_EQ(open_device(config).is_cuda(), cuda_available());
}

TEST(Device, AMissingGpuIsAnError) {
  if (cuda_available()) GTEST_SKIP() << "there is a GPU";
  RunConfig config;
  config.train.device = "cuda";
  try {
    open_device(config);
    FAIL() << "opened a GPU that is not there";
  } catch (const Error& error) {
    EXPECT_TRUE(std::string(error.what()).starts_with("train.device = \"cuda\", but "))
        << error.what();
  }
}

TEST(Device, PrecisionDecidesTheNumberFormat) {
  RunConfig config;
  EXPECT_EQ(compute_dtype(config), at::kFloat);
  EXPECT_EQ(arithmetic(config), Arithmetic::kFp32);
  config.train.precision = "bf16";
  EXPECT_EQ(compute_dtype(config), at::kBFloat16);
  EXPECT_EQ(arithmetic(config), Arithmetic::kBf16);
}

}  // namespace device_test
}  // namespace refract
