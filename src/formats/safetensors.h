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

namespace refract {

// "F32", "BF16", ...; fails for a type that the format does not have.
std::string_view safetensors_dtype(at::ScalarType dtype);
// The place of a type in a file that the reference library writes.
size_t safetensors_order(at::ScalarType dtype);

struct TensorInfo {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes from the end of the header

  std::string describe() const;  // "F32 [3, 4]"
};

// One file, memory-mapped. The constructor checks the whole header; a violation of the format is an
// Error that names the file and the tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return path_; }
  const std::vector<TensorInfo>& tensors() const {
    return tensors_;
  }  // in the order of their bytes
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const TensorInfo* find(std::string_view name) const;  // null if there is none

  // The tensor on the CPU. READ ONLY: it is the mapped file itself (a copy where the file's bytes
  // are not aligned), and keeps the map alive. Fails if there is no such tensor.
  at::Tensor tensor(std::string_view name) const;
  // Lets the system drop the tensor's pages, so that resident memory stays flat over a large file.
  void release(std::string_view name) const;

 private:
  void parse_header();
  void check_extent(const TensorInfo& info, uint64_t expected_begin) const;

  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> map_;
  std::vector<TensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
  uint64_t data_begin_ = 0;
};

}  // namespace refract
