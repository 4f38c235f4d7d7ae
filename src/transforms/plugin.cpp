#include "transforms/plugin.h"

#include <dlfcn.h>
#include <elf.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <optional>
#include <span>
#include <string_view>

#include "core/error.h"
#include "core/files.h"
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

// A part of the file, or nothing where the file does not reach that far.
std::span<const std::byte> part(std::span<const std::byte> file, uint64_t begin, uint64_t size) {
  if (begin > file.size() || size > file.size() - begin) return {};
  return file.subspan(begin, size);
}

template <class T>
std::optional<T> read_at(std::span<const std::byte> file, uint64_t begin) {
  const auto bytes = part(file, begin, sizeof(T));
  if (bytes.empty()) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::string text_of(std::span<const std::byte> bytes) {
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return text.substr(0, text.find('\0'));
}

// What a section of a 64-bit ELF file holds, up to its first zero byte.
std::optional<std::string> section(std::span<const std::byte> file, std::string_view name) {
  const auto header = read_at<Elf64_Ehdr>(file, 0);
  if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0 ||
      header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_shentsize != sizeof(Elf64_Shdr)) {
    return std::nullopt;
  }
  const auto entry = [&](uint64_t index) {
    return read_at<Elf64_Shdr>(file, header->e_shoff + index * sizeof(Elf64_Shdr));
  };
  const auto names = entry(header->e_shstrndx);
  if (!names) return std::nullopt;
  const auto name_table = part(file, names->sh_offset, names->sh_size);
  for (uint64_t i = 0; i < header->e_shnum; ++i) {
    const auto found = entry(i);
    if (!found || found->sh_name >= name_table.size()) continue;
    if (text_of(name_table.subspan(found->sh_name)) == name)
      return text_of(part(file, found->sh_offset, found->sh_size));
  }
  return std::nullopt;
}

// Reads the file and opens nothing: classes of other headers may be laid out otherwise, and
// dlopen() already runs what constructs a library's global objects.
void check_abi(const std::string& path) {
  const MappedFile file(path);
  const std::optional<std::string> abi = section(file.bytes(), ".refract.abi");
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
