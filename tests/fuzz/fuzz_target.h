// A parser that is given arbitrary bytes.
//
// A target may fail by refract::Error, which is what a parser owes a broken file, and by nothing
// else: any other exception, a crash, a sanitizer's finding, a hang and memory beyond the limit are
// findings. Each file of targets/ defines one:
//     FUZZ_TARGET(toml) { parse_toml(text, "the file"); }
#pragma once
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "core/error.h"
#include "support/temporary_folder.h"

namespace refract::fuzz {

using Target = void (*)(std::string_view text);

// All targets of the program by name; a program of libFuzzer's has one.
inline std::map<std::string, Target>& targets() {
  static std::map<std::string, Target> all;
  return all;
}

inline bool enter_target(const char* name, Target target) noexcept {
  return targets().emplace(name, target).second;
}

inline void run_target(Target target, const uint8_t* data, size_t size) {
  try {
    target({reinterpret_cast<const char*>(data), size});
  } catch (const Error& error) {
    // What a person is shown stays readable, whatever the file holds.
    if (std::string_view(error.what()).size() > 8000) std::abort();
  }
}

// A folder of this process for parsers that open files themselves.
class Folder : public testing::TemporaryFolder {
 public:
  std::filesystem::path write(const std::string& name, std::string_view bytes) const {
    std::filesystem::path file = *this / name;
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
    return file;
  }
};

// Cuts the input in two at the first zero byte, for parsers of two files.
inline std::pair<std::string_view, std::string_view> two_files(std::string_view text) {
  const size_t cut = text.find('\0');
  if (cut == std::string_view::npos) return {text, {}};
  return {text.substr(0, cut), text.substr(cut + 1)};
}

}  // namespace refract::fuzz

#define FUZZ_TARGET(name)                                                                       \
  static void fuzz_##name(std::string_view text);                                               \
  namespace {                                                                                   \
  [[maybe_unused]] const bool entered_##name = refract::fuzz::enter_target(#name, fuzz_##name); \
  }                                                                                             \
  static void fuzz_##name([[maybe_unused]] std::string_view text)
