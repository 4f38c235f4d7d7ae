#include "formats/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>

#include "core/error.h"

namespace refract {

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path),
      map_(std::make_shared<MappedFile>(path)),
      header_(read_safetensors_header(map_->bytes(), path)) {
  for (size_t i = 0; i < header_.tensors.size(); ++i) index_[header_.tensors[i].name] = i;
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &header_.tensors[found->second];
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (!info) fail("'{}' holds no tensor '{}'", path_.string(), name);
  const auto options = at::TensorOptions().dtype(info->dtype);
  const std::byte* data = map_->bytes().data() + header_.data_begin + info->begin;
  if (info->begin == info->end) return at::empty(info->shape, options);
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(info->dtype) != 0) {
    at::Tensor copy = at::empty(info->shape, options);
    std::memcpy(copy.mutable_data_ptr(), data, info->end - info->begin);
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data), info->shape, [map = map_](void*) {}, options);
}

void SafetensorsFile::release(std::string_view name) const {
  if (const TensorInfo* info = find(name))
    map_->release(header_.data_begin + info->begin, header_.data_begin + info->end);
}

}  // namespace refract
