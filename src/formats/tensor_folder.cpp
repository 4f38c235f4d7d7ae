#include "formats/tensor_folder.h"

#include "core/error.h"
#include "core/files.h"
#include "core/untrusted.h"
#include "formats/safetensors/weight_map.h"

namespace refract {
namespace fs = std::filesystem;

TensorFolder::TensorFolder(const fs::path& folder) : folder_(folder) {
  const fs::path whole = folder / "model.safetensors",
                 index = folder / "model.safetensors.index.json";
  if (is_gguf_file(folder)) {
    gguf_ = std::make_unique<GgufTensors>(folder);
  } else if (fs::exists(whole)) {
    files_.push_back(std::make_unique<SafetensorsFile>(whole));
    for (const TensorInfo& info : files_[0]->tensors()) where_[info.name] = 0;
  } else if (fs::exists(index)) {
    open_index(index);
  } else if (fs::exists(folder / "pytorch_model.bin") ||
             fs::exists(folder / "pytorch_model.bin.index.json")) {
    fail(
        "'{}' holds only pytorch_model.bin, which is Python's pickle format; convert it to "
        "model.safetensors (load it "
        "with transformers and call save_pretrained)",
        folder.string());
  } else {
    fail("'{}' holds neither model.safetensors nor model.safetensors.index.json", folder.string());
  }
}

void TensorFolder::open_index(const fs::path& path) {
  std::map<std::string, size_t> opened;
  for (const auto& [tensor, name] : read_weight_map(read_file(path, "the weights' index"), path)) {
    if (!opened.contains(name)) {
      if (!fs::exists(folder_ / name)) {
        fail("'{}' names the file '{}', which is missing; download or copy it too", path.string(),
             shown(name));
      }
      opened[name] = files_.size();
      files_.push_back(std::make_unique<SafetensorsFile>(folder_ / name));
    }
    if (!files_[opened[name]]->find(tensor)) {
      fail("'{}' says that tensor '{}' is in '{}', but it is not", path.string(), shown(tensor),
           shown(name));
    }
    where_[tensor] = opened[name];
  }
}

std::vector<const TensorInfo*> TensorFolder::tensors() const {
  if (gguf_) return gguf_->tensors();
  std::vector<const TensorInfo*> all;
  for (const auto& [name, file] : where_) all.push_back(files_[file]->find(name));
  return all;
}

const TensorInfo* TensorFolder::find(std::string_view name) const {
  if (gguf_) return gguf_->find(name);
  const auto found = where_.find(name);
  return found == where_.end() ? nullptr : files_[found->second]->find(name);
}

const SafetensorsFile& TensorFolder::holder(std::string_view name) const {
  const auto found = where_.find(name);
  if (found == where_.end()) fail("'{}' holds no tensor '{}'", folder_.string(), name);
  return *files_[found->second];
}

at::Tensor TensorFolder::tensor(std::string_view name) const {
  return gguf_ ? gguf_->tensor(name) : holder(name).tensor(name);
}

void TensorFolder::release(std::string_view name) const {
  return gguf_ ? gguf_->release(name) : holder(name).release(name);
}

const fs::path& TensorFolder::file_of(std::string_view name) const {
  return gguf_ ? gguf_->path() : holder(name).path();
}

}  // namespace refract
