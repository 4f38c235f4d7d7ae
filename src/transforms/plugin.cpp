#include "transforms/plugin.h"

#include <dlfcn.h>

#include <algorithm>
#include <filesystem>
#include <optional>

#include "core/error.h"
#include "core/files.h"
#include "core/system/elf_section.h"
#include "core/untrusted.h"
#include "plugin_abi.h"  // generated: REFRACT_PLUGIN_ABI of the headers this program was built from

namespace refract {
namespace {

std::vector<std::string>& opened() {
  static std::vector<std::string> paths;
  return paths;
}

[[noreturn]] void not_a_plugin(const std::string& path) {
  fail_usage(
      "--plugin {}: it is not a plug-in of refract; end its source file with {} and compile it by "
      "scripts/plugin (see docs/new-transform.md)",
      path, "REFRACT_KIND(name, Class, \"summary\");");
}

// Reads the file and opens nothing: classes of other headers may be laid out otherwise, and
// dlopen() already runs what constructs a library's global objects.
void check_abi(const std::string& path) {
  const MappedFile file(path);
  const std::optional<std::string> abi = elf_section(file.bytes(), ".refract.abi");
  if (!abi) not_a_plugin(path);
  if (*abi == REFRACT_PLUGIN_ABI) return;
  fail_usage(
      "--plugin {}: it was compiled against other headers (version {}) than this program ({}); "
      "build the program and compile the plug-in again: scripts/plugin FILE.cpp",
      path, shown(*abi, 32), REFRACT_PLUGIN_ABI);
}

template <class Function>
Function symbol(void* library, const char* name, const std::string& path) {
  const auto found = reinterpret_cast<Function>(dlsym(library, name));
  if (!found) not_a_plugin(path);
  return found;
}

}  // namespace

const std::vector<std::string>& loaded_plugins() { return opened(); }

void load_plugin(const std::string& path) {
  if (!std::filesystem::is_regular_file(path))
    fail_usage("--plugin {}: there is no such file", path);
  const std::string place = std::filesystem::canonical(path).string();
  if (std::find(opened().begin(), opened().end(), place) != opened().end()) return;
  check_abi(path);
  void* library = dlopen(place.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    fail_usage("--plugin {}: {}; compile it again: scripts/plugin FILE.cpp", path,
               shown(dlerror()));
  }
  const size_t before = registered_kinds().size();
  symbol<void (*)()>(library, "refract_register", path)();
  if (registered_kinds().size() == before) {
    fail_usage(
        "--plugin {}: it did not register a kind; call register_kind() in its REFRACT_PLUGIN",
        path);
  }
  opened().push_back(place);
}

}  // namespace refract
