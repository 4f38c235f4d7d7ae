// The safetensors format: u64 little-endian header length, a JSON header
// {"name": {"dtype": "F32", "shape": [..], "data_offsets": [begin, end]}, ...}, then the tensors'
// bytes, C order, little endian, without holes or overlaps. https://huggingface.co/docs/safetensors
// (format 0.4 and later).
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
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

// A tensor to be written: its description, and how to get it when its turn comes, so that
// conversions and copies from a device exist one at a time.
struct TensorSource {
  std::string name;
  at::ScalarType dtype = at::kFloat;
  std::vector<int64_t> shape;
  std::function<at::Tensor()>
      make;  // any device and layout, of `shape`; converted to `dtype` on writing

  uint64_t bytes() const;
};
TensorSource source_of(std::string name, const at::Tensor& tensor);

using Metadata = std::map<std::string, std::string>;

// Writes `path` atomically (beside its name, synced, renamed). Bytes depend on the tensors alone,
// not on their order: they are sorted by type and name, as the reference library does.
// Fails with one line when the disk is full or a write fails, and leaves nothing behind.
void write_safetensors(const std::filesystem::path& path, std::vector<TensorSource> tensors,
                       const Metadata& metadata = {{"format", "pt"}});

inline constexpr uint64_t kDefaultShardBytes = 5'000'000'000;

// Writes <folder>/model.safetensors, or, above `max_shard_bytes`, model-0000i-of-0000n.safetensors
// and model.safetensors.index.json; then removes the files of an earlier save that are no part of
// this one. Tensors fill shards in the order given.
void save_tensors(const std::filesystem::path& folder, const std::vector<TensorSource>& tensors,
                  uint64_t max_shard_bytes = kDefaultShardBytes);

// The tensors of a folder: of model.safetensors, or of the shards that model.safetensors.index.json
// names.
class TensorFolder {
 public:
  explicit TensorFolder(const std::filesystem::path& folder);

  std::vector<const TensorInfo*> tensors() const;
  const TensorInfo* find(std::string_view name) const;
  at::Tensor tensor(std::string_view name) const;  // as SafetensorsFile::tensor
  void release(std::string_view name) const;
  const std::filesystem::path& file_of(std::string_view name) const;

 private:
  void open_index(const std::filesystem::path& path);
  const SafetensorsFile& holder(std::string_view name) const;

  std::filesystem::path folder_;
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, size_t, std::less<>> where_;  // tensor -> file
};

}  // namespace refract
