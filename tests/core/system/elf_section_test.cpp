#include "core/system/elf_section.h"

#include <elf.h>
#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace refract {
namespace elf_section_test {

constexpr char kNames[] = "\0.names\0.mine";  // 14 bytes with the last zero

// The header, the names, a content, then the sections: an empty one, .names, .mine.
struct File {
  Elf64_Ehdr header{};
  char names[sizeof(kNames)] = {};
  char content[10] = "abc";
  std::array<Elf64_Shdr, 3> sections{};

  File() {
    std::memcpy(header.e_ident, ELFMAG, SELFMAG);
    header.e_ident[EI_CLASS] = ELFCLASS64;
    header.e_shentsize = sizeof(Elf64_Shdr);
    header.e_shnum = sections.size();
    header.e_shstrndx = 1;
    header.e_shoff = offsetof(File, sections);
    std::memcpy(names, kNames, sizeof(kNames));
    sections[1].sh_name = 1;
    sections[1].sh_offset = offsetof(File, names);
    sections[1].sh_size = sizeof(names);
    sections[2].sh_name = 8;
    sections[2].sh_offset = offsetof(File, content);
    sections[2].sh_size = sizeof(content);
  }
  std::optional<std::string> find(std::string_view name) const {
    return elf_section(std::as_bytes(std::span(this, 1)), name);
  }
};

TEST(ElfSection, IsFoundByItsWholeName) {
  const File file;
  EXPECT_EQ(file.find(".mine"), "abc");
  EXPECT_EQ(file.find(".min"), std::nullopt);
  EXPECT_EQ(file.find(".mine2"), std::nullopt);
}

TEST(ElfSection, NothingOutsideOfTheFileIsLookedAt) {
  File file;
  file.sections[2].sh_offset = UINT64_MAX - 3;
  EXPECT_EQ(file.find(".mine"), "");
  file.sections[1].sh_size = UINT64_MAX;
  EXPECT_EQ(file.find(".mine"), std::nullopt);
  file = File();
  file.header.e_shnum = 65535;
  file.sections[2].sh_name = 4'000'000'000;
  EXPECT_EQ(file.find(".mine"), std::nullopt);
  file = File();
  file.header.e_shoff = UINT64_MAX - sizeof(Elf64_Shdr);
  EXPECT_EQ(file.find(".mine"), std::nullopt);
  file = File();
  file.header.e_ident[EI_CLASS] = ELFCLASS32;
  EXPECT_EQ(file.find(".mine"), std::nullopt);
}

// 65,535 sections whose names lie in a table of 64 MiB take no longer than a few.
TEST(ElfSection, ALargeTableOfNamesIsNotCopied) {
  constexpr size_t kSections = 65535, kTable = 64 << 20;
  std::vector<std::byte> bytes(sizeof(Elf64_Ehdr) + kSections * sizeof(Elf64_Shdr) + kTable,
                               std::byte{'x'});
  Elf64_Ehdr header = File().header;
  header.e_shnum = kSections;
  header.e_shoff = sizeof(header);
  std::memcpy(bytes.data(), &header, sizeof(header));
  Elf64_Shdr section{};
  section.sh_offset = sizeof(header) + kSections * sizeof(section);
  section.sh_size = kTable;
  for (size_t i = 0; i < kSections; ++i)
    std::memcpy(bytes.data() + sizeof(header) + i * sizeof(section), &section, sizeof(section));
  EXPECT_EQ(elf_section(bytes, ".mine"), std::nullopt);
}

}  // namespace elf_section_test
}  // namespace refract
