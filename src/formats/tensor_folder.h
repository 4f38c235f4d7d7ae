// The weights of a model folder, whether they are one safetensors file or several, or of a GGUF
// file.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "formats/gguf/gguf_model.h"
#include "formats/safetensors.h"

namespace refract {

// The tensors of a folder: of model.safetensors, or of the shards that model.safetensors.index.json
// names. A GGUF file in the place of a folder has its tensors under Hugging Face's names.
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
  std::unique_ptr<GgufTensors> gguf_;  // the file, where it is one
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::map<std::string, size_t, std::less<>> where_;  // tensor -> file
};

}  // namespace refract
