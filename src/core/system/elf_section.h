// A section of an ELF file, read without loading the file: loading runs code of it.
#pragma once
#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace refract {

// What the section holds up to its first zero byte; nothing where the bytes are no 64-bit ELF file
// or have no section of that name. In time linear in the number of sections.
std::optional<std::string> elf_section(std::span<const std::byte> file, std::string_view name);

}  // namespace refract
