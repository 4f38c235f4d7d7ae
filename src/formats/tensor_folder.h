// The weights of a model folder, whether they are one safetensors file or several.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/safetensors.h"

namespace refract {

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
