// What stands before the tensors of a safetensors file. Nothing of torch is linked for it, so that
// it can be tried alone on arbitrary bytes.
#pragma once
#include <torch/headeronly/core/ScalarType.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

// "F32", "BF16", ...; fails for a type that the format does not have.
std::string_view safetensors_dtype(c10::ScalarType dtype);
// The place of a type in a file that the reference library writes.
size_t safetensors_order(c10::ScalarType dtype);

struct TensorInfo {
  std::string name;
  c10::ScalarType dtype = c10::ScalarType::Float;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the end of the header

  std::string describe() const;  // "F32 [3, 4]"
};

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in the order of their bytes
  std::map<std::string, std::string> metadata;
  uint64_t data_begin = 0;  // where the tensors start in the file
};

// Reads and checks the header of a whole file. A violation of the format is an Error that names
// `path` and the tensor; what is returned lies within `file`.
SafetensorsHeader read_safetensors_header(std::span<const std::byte> file,
                                          const std::filesystem::path& path);

}  // namespace refract
