#include "support/cuda_guard.h"

#include <ATen/Context.h>
#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>

namespace refract::testing {
namespace {

std::string open_cuda_library() {
  // No driver: libtorch_cuda.so need not be there either, and must not be asked about.
  if (dlopen("libcuda.so.1", RTLD_LAZY | RTLD_GLOBAL) == nullptr) return "no NVIDIA driver here";
  std::string path;
  if (const char* set = std::getenv("REFRACT_CUDA_LIBRARY")) path = set;
  if (path.empty()) {
    const auto program = std::filesystem::read_symlink("/proc/self/exe");
    path = (program.parent_path().parent_path() / "lib" / "librefract_cuda.so").string();
  }
  // Before anything asks torch about CUDA: an earlier question would be answered no for ever.
  if (dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL) == nullptr) return dlerror();
  if (!at::globalContext().hasCUDA()) return "torch finds no CUDA device";
  return "";
}

// Autograd and seeding ask torch about CUDA, and which test runs first is a matter of the filter.
class OpensCudaFirst : public ::testing::Environment {
  void SetUp() override { cuda_unavailable(); }
};
// googletest deletes it. NOLINTNEXTLINE(bugprone-throwing-static-initialization): then no test runs
const ::testing::Environment* const kOpensCudaFirst =
    ::testing::AddGlobalTestEnvironment(new OpensCudaFirst);

}  // namespace

const std::string& cuda_unavailable() {
  static const std::string reason = open_cuda_library();
  return reason;
}

bool cuda_required() {
  const char* set = std::getenv("REFRACT_REQUIRE_CUDA");
  return set != nullptr && std::string(set) == "1";
}

}  // namespace refract::testing
