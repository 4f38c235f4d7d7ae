#include "core/system/elf_section.h"

#include <elf.h>

#include <cstdint>
#include <cstring>

namespace refract {
namespace {

// A part of the file, or nothing where the file does not reach that far.
std::string_view part(std::span<const std::byte> file, uint64_t begin, uint64_t size) {
  if (begin > file.size() || size > file.size() - begin) return {};
  return {reinterpret_cast<const char*>(file.data()) + begin, size};
}

template <class T>
std::optional<T> read_at(std::span<const std::byte> file, uint64_t begin) {
  const std::string_view bytes = part(file, begin, sizeof(T));
  if (bytes.empty()) return std::nullopt;
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

// Whether the table holds the name, and the zero byte that ends it, at the place. Looks no further,
// so that a large table costs nothing.
bool is_named(std::string_view table, uint64_t at, std::string_view name) {
  if (at >= table.size()) return false;
  table.remove_prefix(at);
  return table.starts_with(name) && table.size() > name.size() && table[name.size()] == '\0';
}

}  // namespace

std::optional<std::string> elf_section(std::span<const std::byte> file, std::string_view name) {
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
  const std::string_view table = part(file, names->sh_offset, names->sh_size);
  for (uint64_t i = 0; i < header->e_shnum; ++i) {
    const auto found = entry(i);
    if (!found || !is_named(table, found->sh_name, name)) continue;
    const std::string_view content = part(file, found->sh_offset, found->sh_size);
    return std::string(content.substr(0, content.find('\0')));
  }
  return std::nullopt;
}

}  // namespace refract
