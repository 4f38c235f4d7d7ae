#include "distributed/program.h"

#include <fmt/format.h>

#include <cstdint>
#include <cstring>

#include "core/files.h"

namespace refract {

std::string program_fingerprint() {
  const MappedFile program("/proc/self/exe");
  uint64_t hash = 0xcbf29ce484222325ull;
  const auto bytes = program.bytes();
  for (size_t i = 0; i + sizeof(uint64_t) <= bytes.size(); i += sizeof(uint64_t)) {
    uint64_t word = 0;
    std::memcpy(&word, bytes.data() + i, sizeof(word));
    hash = (hash ^ word) * 0x100000001b3ull;
    hash ^= hash >> 29;
  }
  return fmt::format("{:016x}", hash);
}

}  // namespace refract
