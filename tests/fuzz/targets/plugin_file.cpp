#include "core/system/elf_section.h"
#include "fuzz/fuzz_target.h"

// What is looked for in a plug-in before it is loaded.
FUZZ_TARGET(plugin_file) {
  const auto bytes = std::as_bytes(std::span(text.data(), text.size()));
  const auto found = refract::elf_section(bytes, ".refract.abi");
  if (found && found->size() > text.size()) std::abort();
}
