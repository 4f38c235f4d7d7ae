// Writing the safetensors format: single files, and the weights of a model folder in shards.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

namespace refract {

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

}  // namespace refract
