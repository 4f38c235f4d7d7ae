#include "distributed/engines.h"

#include <dlfcn.h>

#include <exception>
#include <filesystem>

#include "core/error.h"
#include "distributed/gloo/engine.h"
#include "distributed/rendezvous.h"

namespace refract {
namespace {

std::filesystem::path gloo_library() {
  Dl_info info{};
  if (dladdr(reinterpret_cast<const void*>(&register_nccl), &info) == 0 || !info.dli_fname)
    return "librefract_gloo.so";
  std::error_code ignored;
  return std::filesystem::absolute(info.dli_fname, ignored).parent_path() / "librefract_gloo.so";
}

EngineFactory gloo_factory() {
  const std::filesystem::path path = gloo_library();
  if (!has_gloo()) {
    fail(
        "several processes on CPUs need '{}', which was not built; install libgloo-dev and build "
        "again",
        path.string());
  }
#if defined(__SANITIZE_ADDRESS__)
  fail(
      "several processes on CPUs do not run under AddressSanitizer: it forbids the way in which "
      "Gloo is loaded");
#else
  // Its own Gloo comes before the one inside libtorch, which is another version.
  void* const library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
  if (!library) fail("'{}' does not load: {}", path.string(), dlerror());
  const auto make =
      reinterpret_cast<decltype(&refract_make_gloo)>(dlsym(library, "refract_make_gloo"));
  if (!make) fail("'{}' is not of this program: {}", path.string(), dlerror());
  return [make](const EngineSettings& settings, KeyValues& store) {
    return std::unique_ptr<Collectives>(make(&settings, &store));
  };
#endif
}

}  // namespace

bool has_gloo() {
  std::error_code ignored;
  return std::filesystem::exists(gloo_library(), ignored);
}

std::unique_ptr<Collectives> open_engine(at::Device device, const Ranks& ranks, KeyValues& store,
                                         int64_t seconds) {
  EngineSettings settings;
  settings.rank = static_cast<int>(ranks.rank);
  settings.size = static_cast<int>(ranks.size);
  settings.connect_seconds = static_cast<int>(seconds);
  EngineFactory factory;
  if (device.is_cuda()) {
    factory = nccl_factory();
    if (!factory) {
      fail(
          "several processes on GPUs need NCCL, which this program was built without; install the "
          "wheels of requirements-full.txt and build again, or set train.device = \"cpu\"");
    }
  } else {
    factory = gloo_factory();
    settings.interface = environment_variable("GLOO_SOCKET_IFNAME").value_or("");
    if (settings.interface.empty()) settings.address = own_address(ranks.address, ranks.port);
  }
  try {
    return factory(settings, store);
  } catch (const std::exception& error) {
    const std::string text = error.what();
    throw ConnectionError("the processes can't connect to each other: " +
                          text.substr(0, text.find('\n')));
  }
}

}  // namespace refract
