// GGUF files: what stands before the tensors. Little endian: "GGUF", u32 version, u64 tensors, u64
// settings; the settings (name, u32 kind, value), then the tensors' descriptions (name, u32
// dimensions, u64 sizes innermost first, u32 type, u64 offset from where the tensors begin), then
// their bytes, each at a multiple of general.alignment (32).
// https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3; 2 differs only in that it
// is never big-endian). Nothing of torch is needed for it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/gguf/gguf_metadata.h"
#include "core/gguf/gguf_types.h"

namespace refract {

inline constexpr uint64_t kGgufAlignment = 32;  // where general.alignment says nothing

struct GgufTensor {
  std::string name;
  const GgufType* type = nullptr;
  std::vector<int64_t> shape;   // outermost first, as torch's; the file has it the other way round
  uint64_t begin = 0, end = 0;  // bytes of the file

  int64_t numel() const;
  std::string describe() const;  // "Q4_1 [576, 1536]"
};

struct GgufHeader {
  GgufMetadata settings;
  std::vector<GgufTensor> tensors;                   // in the file's order
  std::map<std::string, size_t, std::less<>> index;  // of `tensors` by name

  const GgufTensor* find(std::string_view name) const;  // null if there is none
};

// Reads and checks the header of a whole file. A violation of the format is an Error that names
// `path` and the setting or tensor; what is returned lies within `file`, tensors without overlaps.
GgufHeader read_gguf_header(std::span<const std::byte> file, const std::filesystem::path& path);

// Whether a path is a file and not a folder, that begins as GGUF does or is named .gguf.
bool is_gguf_file(const std::filesystem::path& path);

}  // namespace refract
