// The tensors of a GGUF file under the names that a Hugging Face folder has.
#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "formats/safetensors/header.h"

namespace refract {

// Memory-mapped. F32, F16 and BF16 keep their type, blocks become float32 with the
// bits that transformers gives. A name that is not known stays as it is.
class GgufTensors {
 public:
  // Fails, naming file and tensor, for a type that is not dequantized.
  explicit GgufTensors(const std::filesystem::path& path);
  GgufTensors(const GgufTensors&) = delete;  // entries point into the header
  GgufTensors& operator=(const GgufTensors&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::vector<const TensorInfo*> tensors() const;
  const TensorInfo* find(std::string_view name) const;  // null if there is none
  // On the CPU. READ ONLY; it may be the mapped file itself, which it keeps alive.
  at::Tensor tensor(std::string_view name) const;
  // Lets the system drop the tensor's pages.
  void release(std::string_view name) const;

 private:
  struct Entry {
    TensorInfo info;
    const GgufTensor* stored;
  };
  at::Tensor read(const GgufTensor& stored, const TensorInfo& info) const;

  std::filesystem::path path_;
  std::shared_ptr<const MappedFile> map_;
  GgufHeader header_;
  std::map<std::string, Entry, std::less<>> entries_;
  bool interleaved_ = false;  // q and k
  int64_t heads_ = 0, key_value_heads_ = 0;
};

}  // namespace refract
