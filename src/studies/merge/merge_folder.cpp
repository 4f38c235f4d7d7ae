#include "studies/merge/merge_folder.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/untrusted.h"
#include "formats/carried.h"
#include "formats/checkpoint.h"
#include "formats/model_path.h"
#include "formats/safetensors_write.h"
#include "runs/loaded_model.h"
#include "runs/model_folder.h"
#include "runs/same_model.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

void refuse_transforms(const fs::path& folder) {
  const std::string rules = folder_config(folder, {}, folder.string()).transform;
  if (rules.empty() || rules == "[]") return;
  fail_usage(
      "'{}' has transformed layers, and merging takes dense models: write each one's dense weights "
      "first (refract export MODEL --out FOLDER)",
      folder.string());
}

// Two models whose weights are points of one space.
void compare_folders(const fs::path& a, const fs::path& b) {
  std::string difference =
      config_difference(CheckpointReader(a).config(), CheckpointReader(b).config());
  const auto of_a = folder_tokenizer(a), of_b = folder_tokenizer(b);
  if (difference.empty() && of_a && of_b) difference = vocabulary_difference(*of_a, *of_b);
  if (!difference.empty())
    fail_usage("'{}' and '{}' can't be merged: {}", a.string(), b.string(), difference);
}

void compare_tensors(const TensorFolder& a, const TensorFolder& b, const fs::path& path) {
  for (const TensorInfo* info : a.tensors()) {
    const TensorInfo* other = b.find(info->name);
    if (!other)
      fail_usage("'{}' has no tensor '{}', which the first model has", path.string(), info->name);
    if (other->shape != info->shape) {
      fail_usage("'{}': '{}' is {}, and {} in the first model", path.string(), info->name,
                 other->describe(), info->describe());
    }
  }
  if (b.tensors().size() > a.tensors().size())
    fail_usage("'{}' has tensors that the first model does not have", path.string());
}

// What lies beside the weights, as the first model has it.
void write_rest(const fs::path& from, const fs::path& to, std::optional<at::ScalarType> dtype) {
  const Carried carried = read_carried(from);
  write_side_files(carried, to);
  if (!carried.generation.empty())
    write_file_atomically(to / "generation_config.json", carried.generation);
  if (const auto tokenizer = folder_tokenizer(from)) tokenizer->save(to);
  copy_settings(from, to);
  nlohmann::json tree =
      parse_json(read_file(from / "config.json", "the model's configuration"), "config.json");
  for (const char* key : {"torch_dtype", "dtype"}) {
    if (!dtype || !tree.contains(key)) continue;
    tree[key] = *dtype == at::kFloat ? "float32" : *dtype == at::kHalf ? "float16" : "bfloat16";
  }
  write_file_atomically(to / "config.json", tree.dump(2) + "\n");
}

}  // namespace

MergeFolders::MergeFolders(const std::vector<std::string>& models, const std::string& base) {
  for (const std::string& model : models) paths_.push_back(resolve_model_path(model));
  if (!base.empty()) paths_.push_back(resolve_model_path(base));
  for (const fs::path& path : paths_) {
    if (is_gguf_file(path)) {
      fail_usage("'{}' is a GGUF file, and merge takes folders: refract export {} --out FOLDER",
                 path.string(), path.string());
    }
    refuse_transforms(path);
    auto folder = std::make_unique<TensorFolder>(path);
    if (!models_.empty()) {
      compare_folders(paths_[0], path);
      compare_tensors(*models_[0], *folder, path);
    }
    if (models_.size() < models.size()) {
      models_.push_back(std::move(folder));
    } else {
      base_ = std::move(folder);
    }
  }
}

void MergeFolders::write(const fs::path& folder, const MergeSettings& settings,
                         std::optional<at::ScalarType> dtype,
                         const std::vector<size_t>& chosen) const {
  std::vector<TensorSource> sources;
  for (const TensorInfo* info : models_[0]->tensors()) {
    const bool floating = c10::isFloatingType(info->dtype);
    const auto make = [this, settings, chosen, floating, name = info->name] {
      if (!floating) return models_[0]->tensor(name).clone();  // a mask, a counter
      std::vector<at::Tensor> tensors;
      for (const size_t model : chosen) tensors.push_back(models_[model]->tensor(name));
      at::Tensor merged =
          merge_tensors(name, tensors, base_ ? base_->tensor(name) : at::Tensor(), settings);
      for (const size_t model : chosen) models_[model]->release(name);
      if (base_) base_->release(name);
      return merged;
    };
    sources.push_back(
        {info->name, floating ? dtype.value_or(info->dtype) : info->dtype, info->shape, make});
  }
  save_tensors(folder, sources);
  write_rest(paths_[0], folder, dtype);
}

}  // namespace refract
