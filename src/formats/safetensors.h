// The safetensors format: u64 little-endian header length, a JSON header
// {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...}, then the tensors'
// bytes, C order, little endian, without holes or overlaps. https://huggingface.co/docs/safetensors
// (format 0.4 and later).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "formats/safetensors/header.h"

namespace refract {

// One file, memory-mapped. The constructor checks the whole header; a violation of the format is an
// Error that names the file and the tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  // In the order of their bytes.
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  const std::map<std::string, std::string>& metadata() const { return header_.metadata; }
  const TensorInfo* find(std::string_view name) const;  // null if there is none

  // The tensor on the CPU. READ ONLY: it is the mapped file itself (a copy where the file's bytes
  // are not aligned), and keeps the map alive. Fails if there is no such tensor.
  at::Tensor tensor(std::string_view name) const;
  // Lets the system drop the tensor's pages, so that resident memory stays flat over a large file.
  void release(std::string_view name) const;

 private:
  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> map_;
  SafetensorsHeader header_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace refract
