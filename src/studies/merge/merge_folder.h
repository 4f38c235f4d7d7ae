// Folders of models that are to be merged, and the folder of the merged one.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "formats/tensor_folder.h"
#include "studies/merge/merge_methods.h"

namespace refract {

// Opened and compared, nothing loaded.
class MergeFolders {
 public:
  // `base` may be empty. Fails (usage) where one differs from the first in architecture, vocabulary
  // or tensors, and where one has transform rules.
  MergeFolders(const std::vector<std::string>& models, const std::string& base);

  size_t size() const { return models_.size(); }
  const std::filesystem::path& folder(size_t model) const { return paths_[model]; }

  // A model folder with the weights that the settings give, or of the models in `chosen` alone.
  // `folder` exists.
  void write(const std::filesystem::path& folder, const MergeSettings& settings,
             std::optional<at::ScalarType> dtype, const std::vector<size_t>& chosen) const;

 private:
  std::vector<std::filesystem::path> paths_;  // of the models, then of the base
  std::vector<std::unique_ptr<TensorFolder>> models_;
  std::unique_ptr<TensorFolder> base_;
};

}  // namespace refract
