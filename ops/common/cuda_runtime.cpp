#include "ops/common/cuda_runtime.h"

#include <ATen/Context.h>
#include <dlfcn.h>

#include <filesystem>

namespace refract {
namespace {

std::unique_ptr<CudaRuntime>& registered() {
  static std::unique_ptr<CudaRuntime> runtime;
  return runtime;
}

struct State {
  bool available = false;
  std::string reason;  // why there is no runtime of ours
};

// Empty where the driver is installed and shows a device. The driver's own library is asked: torch
// must not be, before its CUDA library is loaded.
std::string driver_problem() {
  void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (driver == nullptr) return "no NVIDIA driver is installed (libcuda.so.1 was not found)";
  using Init = int (*)(unsigned);
  using Count = int (*)(int*);
  const auto init = reinterpret_cast<Init>(dlsym(driver, "cuInit"));
  const auto count = reinterpret_cast<Count>(dlsym(driver, "cuDeviceGetCount"));
  const auto version = reinterpret_cast<Count>(dlsym(driver, "cuDriverGetVersion"));
  if (init == nullptr || count == nullptr || version == nullptr) {
    return "libcuda.so.1 is not NVIDIA's driver library";
  }
  int supports = 0;  // 13020 is CUDA 13.2
  if (version(&supports) == 0 && supports < 13000) {
    return "the NVIDIA driver is too old: it supports CUDA " + std::to_string(supports / 1000) +
           "." + std::to_string(supports % 1000 / 10) +
           ", and 13.0 is needed; install driver 580 or newer";
  }
  int devices = 0;
  if (const int error = init(0)) {
    return "the NVIDIA driver does not start (cuInit returned " + std::to_string(error) + ")";
  }
  if (count(&devices) != 0 || devices == 0) {
    return "the NVIDIA driver shows no GPU (is CUDA_VISIBLE_DEVICES set?)";
  }
  return "";
}

// The folder of the library that holds `symbol`.
std::filesystem::path folder_of(const void* symbol) {
  Dl_info info{};
  if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return {};
  std::error_code error;
  return std::filesystem::absolute(info.dli_fname, error).parent_path();
}

State load() {
  State state;
  state.reason = driver_problem();
  if (!state.reason.empty()) return state;
  // Already registered where Python opened our library itself.
  if (!registered()) {
    const auto ours =
        folder_of(reinterpret_cast<const void*>(&cuda_runtime)) / "librefract_cuda.so";
    if (!std::filesystem::exists(ours)) {
      state.reason = "a GPU is present, but " + ours.string() +
                     " was not built; configure with -DREFRACT_CUDA=on";
      const auto torch = folder_of(reinterpret_cast<const void*>(&at::globalContext));
      dlopen((torch / "libtorch_cuda.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
    } else if (dlopen(ours.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) {
      state.reason = std::string("librefract_cuda.so does not load: ") + dlerror();
    }
  }
  // Only now may torch be asked.
  state.available = at::globalContext().hasCUDA();
  if (state.available) return state;
  registered().reset();
  if (state.reason.empty()) {
    state.reason = "torch was asked about CUDA before its CUDA library was loaded, or can't use it";
  }
  return state;
}

const State& state() {
  static const State loaded = load();
  return loaded;
}

}  // namespace

const CudaRuntime* cuda_runtime() { return state().available ? registered().get() : nullptr; }
bool cuda_available() { return state().available; }
const std::string& cuda_unavailable_reason() { return state().reason; }

void register_cuda_runtime(std::unique_ptr<CudaRuntime> runtime) {
  registered() = std::move(runtime);
}

}  // namespace refract
