#include "runs/device.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <fstream>

#include "core/error.h"
#include "ops/common/cuda_runtime.h"

namespace refract {
namespace {

// "model name : Intel(R) Xeon(R) ..." of the first processor.
std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    if (!line.starts_with("model name")) continue;
    const size_t begin = line.find_first_not_of(" \t", line.find(':') + 1);
    if (begin != std::string::npos) return line.substr(begin);
  }
  return "CPU";
}

}  // namespace

at::Device open_device(const RunConfig& config) {
  if (config.train.threads > 0) at::set_num_threads(static_cast<int>(config.train.threads));
  if (config.train.device == "cpu") return at::Device(at::kCPU);
  if (const CudaRuntime* cuda = cuda_runtime()) {
    if (!cuda->has_kernels()) {
      fail(
          "{} has compute capability {}.{}; refract's kernels need 8.0 or newer; train.device=cpu "
          "does without it",
          cuda->device_name(), cuda->compute_capability() / 10, cuda->compute_capability() % 10);
    }
    cuda->set_deterministic(config.train.deterministic);
    cuda->prefer_cudnn_attention(!config.train.deterministic);
    cuda->use_side_stream();
  }
  if (!cuda_available()) {
    if (config.train.device == "cuda")
      fail("train.device = \"cuda\", but {}", cuda_unavailable_reason());
    return at::Device(at::kCPU);
  }
  if (!cuda_runtime() && config.train.cuda_graph == "on") {
    fail("train.cuda_graph = \"on\", but {}", cuda_unavailable_reason());
  }
  return at::Device(at::kCUDA, 0);
}

std::string device_name(at::Device device) {
  if (device.is_cuda()) return cuda_runtime() ? cuda_runtime()->device_name() : "CUDA";
  return fmt::format("CPU ({} threads)", at::get_num_threads());
}

std::string device_key(at::Device device) {
  if (device.is_cuda()) return device_name(device);
  return fmt::format("{}, {} threads", processor_name(), at::get_num_threads());
}

at::ScalarType compute_dtype(const RunConfig& config) {
  return config.train.precision == "bf16" ? at::kBFloat16 : at::kFloat;
}

Arithmetic arithmetic(const RunConfig& config) {
  return config.train.precision == "bf16" ? Arithmetic::kBf16 : Arithmetic::kFp32;
}

}  // namespace refract
