#include "formats/gguf/gguf_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "core/error.h"
#include "core/untrusted.h"
#include "formats/gguf/dequantize.h"
#include "formats/gguf/gguf_config.h"
#include "formats/gguf/gguf_names.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

at::ScalarType dtype_of(const GgufType& type) {
  if (type.number == kGgufF16) return at::kHalf;
  if (type.number == kGgufBF16) return at::kBFloat16;
  return at::kFloat;
}

void check_type(const GgufTensor& stored, const fs::path& path) {
  if (!is_dequantized(*stored.type))
    fail(
        "'{}': the tensor '{}' is of the type {}, which is not read (F32, F16, BF16, Q4_0, Q4_1, "
        "Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K are)",
        path.string(), shown(stored.name), stored.type->name);
}

// [H, D / 2, 2] in the rows back to [H, 2, D / 2].
at::Tensor halves_apart(const at::Tensor& rows, int64_t heads) {
  std::vector<int64_t> shape = {heads, rows.size(0) / heads / 2, 2};
  shape.insert(shape.end(), rows.sizes().begin() + 1, rows.sizes().end());
  return rows.reshape(shape).transpose(1, 2).reshape(rows.sizes());
}

}  // namespace

GgufTensors::GgufTensors(const fs::path& path)
    : path_(path),
      map_(std::make_shared<MappedFile>(path)),
      header_(read_gguf_header(map_->bytes(), path)) {
  const nlohmann::json config = gguf_config(header_, map_->bytes());
  interleaved_ =
      gguf_architecture(header_.settings.text("general.architecture", ""), header_.settings.where())
          .interleaved;
  heads_ = config.at("num_attention_heads").get<int64_t>();
  key_value_heads_ = config.at("num_key_value_heads").get<int64_t>();
  for (const GgufTensor& stored : header_.tensors) {
    if (stored.name == kRopeDivisors) continue;  // a setting, which the configuration has read
    check_type(stored, path);
    TensorInfo info;
    info.name = hf_name_of_gguf(stored.name).value_or(stored.name);
    info.dtype = dtype_of(*stored.type);
    info.shape = stored.shape;
    info.begin = stored.begin;
    info.end = stored.end;
    std::string name = info.name;
    if (!entries_.try_emplace(std::move(name), Entry{std::move(info), &stored}).second)
      fail("'{}': the tensor '{}' is there under Hugging Face's name too", path_.string(),
           shown(stored.name));
  }
}

std::vector<const TensorInfo*> GgufTensors::tensors() const {
  std::vector<const TensorInfo*> all;
  for (const auto& [name, entry] : entries_) all.push_back(&entry.info);
  return all;
}

const TensorInfo* GgufTensors::find(std::string_view name) const {
  const auto found = entries_.find(name);
  return found == entries_.end() ? nullptr : &found->second.info;
}

at::Tensor GgufTensors::tensor(std::string_view name) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) fail("'{}' holds no tensor '{}'", path_.string(), name);
  const auto& [info, stored] = found->second;
  at::Tensor values = read(*stored, info);
  if (!interleaved_ || !is_query_or_key(info.name)) return values;
  const int64_t heads = info.name.find(".k_proj.") == std::string::npos ? heads_ : key_value_heads_;
  if (heads < 1 || values.dim() < 1 || values.size(0) % heads != 0 ||
      values.size(0) / heads % 2 != 0)
    fail("'{}': the tensor '{}' is {}, which {} heads of an even width can't share", path_.string(),
         stored->name, stored->describe(), heads);
  return halves_apart(values, heads);
}

at::Tensor GgufTensors::read(const GgufTensor& stored, const TensorInfo& info) const {
  const std::byte* data = map_->bytes().data() + stored.begin;
  const auto options = at::TensorOptions().dtype(info.dtype);
  if (stored.type->elements == 1) {  // the alignment is at least that of any element
    return at::from_blob(
        const_cast<std::byte*>(data), info.shape, [map = map_](void*) {}, options);
  }
  at::Tensor values = at::empty(info.shape, options);
  dequantize(*stored.type, data, stored.numel(), values.mutable_data_ptr<float>());
  return values;
}

void GgufTensors::release(std::string_view name) const {
  if (const TensorInfo* info = find(name)) map_->release(info->begin, info->end);
}

}  // namespace refract
