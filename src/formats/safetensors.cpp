#include "formats/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>

#include "core/error.h"
#include "core/foreign_bytes.h"
#include "core/untrusted.h"

namespace refract {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;

struct DtypeName {
  std::string_view name;
  at::ScalarType dtype;
};
// In the order in which the reference library writes them: never a smaller element before a larger
// one.
constexpr DtypeName kDtypes[] = {
    {"U64", at::kUInt64},
    {"I64", at::kLong},
    {"F64", at::kDouble},
    {"C64", at::kComplexFloat},
    {"F32", at::kFloat},
    {"U32", at::kUInt32},
    {"I32", at::kInt},
    {"BF16", at::kBFloat16},
    {"F16", at::kHalf},
    {"U16", at::kUInt16},
    {"I16", at::kShort},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
};

uint64_t read_length(std::span<const std::byte> bytes) {
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  return length;
}

// A list of non-negative integers, or nothing.
std::optional<std::vector<uint64_t>> naturals(const nlohmann::json& entry, const char* key) {
  const auto found = entry.find(key);
  if (found == entry.end() || !found->is_array()) return std::nullopt;
  std::vector<uint64_t> values;
  for (const nlohmann::json& value : *found) {
    if (!value.is_number_unsigned()) return std::nullopt;
    values.push_back(value.get<uint64_t>());
  }
  return values;
}

// Bytes of a tensor, or nothing where the product does not fit.
std::optional<uint64_t> byte_size(const std::vector<uint64_t>& shape, at::ScalarType dtype) {
  uint64_t bytes = c10::elementSize(dtype);
  for (uint64_t n : shape) {
    if (__builtin_mul_overflow(bytes, n, &bytes)) return std::nullopt;
  }
  if (bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return bytes;
}

TensorInfo parse_entry(const std::string& file, const std::string& name,
                       const nlohmann::json& entry) {
  if (!entry.is_object())
    fail("'{}' is damaged: the entry of tensor '{}' is not an object", file, shown(name));
  TensorInfo info;
  info.name = name;
  const auto dtype = entry.find("dtype");
  if (dtype == entry.end() || !dtype->is_string())
    fail("'{}' is damaged: tensor '{}' has no dtype", file, shown(name));
  const auto known = std::ranges::find(kDtypes, dtype->get<std::string>(), &DtypeName::name);
  if (known == std::end(kDtypes)) {
    fail("'{}': tensor '{}' has the dtype {}, which refract can't read", file, shown(name),
         shown(*dtype));
  }
  info.dtype = known->dtype;
  const auto shape = naturals(entry, "shape");
  if (!shape) fail("'{}' is damaged: tensor '{}' has no shape of whole numbers", file, shown(name));
  const auto size = byte_size(*shape, info.dtype);
  if (!size)
    fail("'{}' is damaged: tensor '{}' has the impossible shape {}", file, shown(name),
         shown(entry["shape"]));
  info.shape.assign(shape->begin(), shape->end());
  const auto offsets = naturals(entry, "data_offsets");
  if (!offsets || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
    fail("'{}' is damaged: tensor '{}' has no data_offsets [begin, end]", file, shown(name));
  }
  info.begin = (*offsets)[0];
  info.end = (*offsets)[1];
  if (info.end - info.begin != *size) {
    fail("'{}' is damaged: tensor '{}' is {}, {} bytes, but its data_offsets [{}, {}] hold {}",
         file, shown(name), shown(info.describe()), *size, info.begin, info.end,
         info.end - info.begin);
  }
  return info;
}

}  // namespace

std::string_view safetensors_dtype(at::ScalarType dtype) {
  return kDtypes[safetensors_order(dtype)].name;
}

size_t safetensors_order(at::ScalarType dtype) {
  const auto known = std::ranges::find(kDtypes, dtype, &DtypeName::dtype);
  if (known == std::end(kDtypes)) {
    fail("safetensors files can't hold tensors of type {}", c10::toString(dtype));
  }
  return static_cast<size_t>(known - std::begin(kDtypes));
}

std::string TensorInfo::describe() const {
  return fmt::format("{} [{}]", safetensors_dtype(dtype), fmt::join(shape, ", "));
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path)
    : path_(path), map_(std::make_shared<MappedFile>(path)) {
  parse_header();
}

void SafetensorsFile::parse_header() {
  const std::string file = path_.string();
  const std::span<const std::byte> bytes = map_->bytes();
  constexpr size_t kHead = 256;  // more than an LFS pointer has
  refuse_foreign_bytes(path_,
                       {reinterpret_cast<const char*>(bytes.data()), std::min(bytes.size(), kHead)},
                       "a safetensors file");
  if (bytes.size() < 8) fail("'{}' is not a safetensors file: it has {} bytes", file, bytes.size());
  const uint64_t length = read_length(bytes);
  if (length > kMaxHeader) {
    fail(
        "'{}' is not a safetensors file: its header would be {} bytes long, at most {} are allowed",
        file, length, kMaxHeader);
  }
  if (length > bytes.size() - 8) {
    fail("'{}' is cut off: its header is {} bytes long, and the file has {}", file, length,
         bytes.size());
  }
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  if (length == 0 || text[0] != '{')
    fail("'{}' is not a safetensors file: its header does not start with '{{'", file);
  const nlohmann::json header =
      parse_json({text, length}, fmt::format("the header of '{}'", file), JsonKeys::kOnce);
  data_begin_ = 8 + length;
  for (const auto& [name, entry] : header.items()) {
    if (name != "__metadata__") {
      tensors_.push_back(parse_entry(file, name, entry));
      continue;
    }
    if (!entry.is_object()) fail("'{}' is damaged: __metadata__ is not an object", file);
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string())
        fail("'{}' is damaged: __metadata__ '{}' is not a string", file, shown(key));
      metadata_[key] = value.get<std::string>();
    }
  }
  std::ranges::stable_sort(tensors_, [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = 0;
  for (size_t i = 0; i < tensors_.size(); ++i) {
    check_extent(tensors_[i], expected);
    expected = tensors_[i].end;
    index_[tensors_[i].name] = i;
  }
  const uint64_t data_size = bytes.size() - data_begin_;
  if (expected != data_size) {
    fail("'{}' is damaged: its tensors end at byte {} of {}", file, expected, data_size);
  }
}

void SafetensorsFile::check_extent(const TensorInfo& info, uint64_t expected_begin) const {
  const uint64_t data_size = map_->bytes().size() - data_begin_;
  if (info.begin < expected_begin) {
    fail("'{}' is damaged: tensor '{}' overlaps the one before it", path_.string(),
         shown(info.name));
  }
  if (info.begin > expected_begin) {
    fail("'{}' is damaged: {} unused bytes stand before tensor '{}'", path_.string(),
         info.begin - expected_begin, shown(info.name));
  }
  if (info.end > data_size) {
    fail("'{}' is cut off: tensor '{}' ends at byte {} of {}", path_.string(), shown(info.name),
         info.end, data_size);
  }
}

const TensorInfo* SafetensorsFile::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

at::Tensor SafetensorsFile::tensor(std::string_view name) const {
  const TensorInfo* info = find(name);
  if (!info) fail("'{}' holds no tensor '{}'", path_.string(), name);
  const auto options = at::TensorOptions().dtype(info->dtype);
  const std::byte* data = map_->bytes().data() + data_begin_ + info->begin;
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
    map_->release(data_begin_ + info->begin, data_begin_ + info->end);
}

}  // namespace refract
