#include "formats/safetensors/header.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>

#include "core/error.h"
#include "core/foreign_bytes.h"
#include "core/untrusted.h"

namespace refract {
namespace {

constexpr uint64_t kMaxHeader = 100'000'000;

struct Dtype {
  std::string_view name;
  c10::ScalarType dtype;
  uint64_t bytes;
};
// In the order in which the reference library writes them: never a smaller element before a larger
// one.
constexpr Dtype kDtypes[] = {
    {"U64", c10::ScalarType::UInt64, 8},
    {"I64", c10::ScalarType::Long, 8},
    {"F64", c10::ScalarType::Double, 8},
    {"C64", c10::ScalarType::ComplexFloat, 8},
    {"F32", c10::ScalarType::Float, 4},
    {"U32", c10::ScalarType::UInt32, 4},
    {"I32", c10::ScalarType::Int, 4},
    {"BF16", c10::ScalarType::BFloat16, 2},
    {"F16", c10::ScalarType::Half, 2},
    {"U16", c10::ScalarType::UInt16, 2},
    {"I16", c10::ScalarType::Short, 2},
    {"F8_E4M3", c10::ScalarType::Float8_e4m3fn, 1},
    {"F8_E5M2", c10::ScalarType::Float8_e5m2, 1},
    {"I8", c10::ScalarType::Char, 1},
    {"U8", c10::ScalarType::Byte, 1},
    {"BOOL", c10::ScalarType::Bool, 1},
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

// Bytes of a tensor, or nothing where the product does not fit; a zero among the sizes hides no
// size beside it that is out of range.
std::optional<uint64_t> byte_size(const std::vector<uint64_t>& shape, uint64_t element) {
  uint64_t bytes = element;
  for (uint64_t n : shape) {
    if (__builtin_mul_overflow(bytes, std::max<uint64_t>(n, 1), &bytes)) return std::nullopt;
  }
  if (bytes > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
  return std::ranges::find(shape, 0U) == shape.end() ? bytes : 0;
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
  const auto known = std::ranges::find(kDtypes, dtype->get<std::string>(), &Dtype::name);
  if (known == std::end(kDtypes)) {
    fail("'{}': tensor '{}' has the dtype {}, which refract can't read", file, shown(name),
         shown(*dtype));
  }
  info.dtype = known->dtype;
  const auto shape = naturals(entry, "shape");
  if (!shape) fail("'{}' is damaged: tensor '{}' has no shape of whole numbers", file, shown(name));
  const auto size = byte_size(*shape, known->bytes);
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

// The header's JSON, which stands behind its length.
std::string_view header_text(std::span<const std::byte> bytes, const std::string& file) {
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
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (!text.starts_with('{'))
    fail("'{}' is not a safetensors file: its header does not start with '{{'", file);
  return text;
}

std::map<std::string, std::string> parse_metadata(const std::string& file,
                                                  const nlohmann::json& entry) {
  if (!entry.is_object()) fail("'{}' is damaged: __metadata__ is not an object", file);
  std::map<std::string, std::string> metadata;
  for (const auto& [key, value] : entry.items()) {
    if (!value.is_string())
      fail("'{}' is damaged: __metadata__ '{}' is not a string", file, shown(key));
    metadata[key] = value.get<std::string>();
  }
  return metadata;
}

void check_extent(const std::string& file, const TensorInfo& info, uint64_t expected_begin,
                  uint64_t data_size) {
  if (info.begin < expected_begin)
    fail("'{}' is damaged: tensor '{}' overlaps the one before it", file, shown(info.name));
  if (info.begin > expected_begin) {
    fail("'{}' is damaged: {} unused bytes stand before tensor '{}'", file,
         info.begin - expected_begin, shown(info.name));
  }
  if (info.end > data_size) {
    fail("'{}' is cut off: tensor '{}' ends at byte {} of {}", file, shown(info.name), info.end,
         data_size);
  }
}

// Without holes and overlaps, from the header to the file's end. Sorts the tensors.
void check_extents(const std::string& file, std::vector<TensorInfo>& tensors, uint64_t data_size) {
  std::ranges::stable_sort(tensors, [](const TensorInfo& a, const TensorInfo& b) {
    return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
  });
  uint64_t expected = 0;
  for (const TensorInfo& info : tensors) {
    check_extent(file, info, expected, data_size);
    expected = info.end;
  }
  if (expected != data_size)
    fail("'{}' is damaged: its tensors end at byte {} of {}", file, expected, data_size);
}

}  // namespace

std::string_view safetensors_dtype(c10::ScalarType dtype) {
  return kDtypes[safetensors_order(dtype)].name;
}

size_t safetensors_order(c10::ScalarType dtype) {
  const auto known = std::ranges::find(kDtypes, dtype, &Dtype::dtype);
  if (known == std::end(kDtypes)) {
    fail("safetensors files can't hold tensors of type {}", c10::toString(dtype));
  }
  return static_cast<size_t>(known - std::begin(kDtypes));
}

std::string TensorInfo::describe() const {
  return fmt::format("{} [{}]", safetensors_dtype(dtype), fmt::join(shape, ", "));
}

SafetensorsHeader read_safetensors_header(std::span<const std::byte> file,
                                          const std::filesystem::path& path) {
  const std::string name = path.string();
  constexpr size_t kHead = 256;  // more than an LFS pointer has
  refuse_foreign_bytes(path,
                       {reinterpret_cast<const char*>(file.data()), std::min(file.size(), kHead)},
                       "a safetensors file");
  const std::string_view text = header_text(file, name);
  const nlohmann::json tree =
      parse_json(text, fmt::format("the header of '{}'", name), JsonKeys::kOnce);
  SafetensorsHeader header;
  header.data_begin = 8 + text.size();
  for (const auto& [tensor, entry] : tree.items()) {
    if (tensor == "__metadata__") {
      header.metadata = parse_metadata(name, entry);
    } else {
      header.tensors.push_back(parse_entry(name, tensor, entry));
    }
  }
  check_extents(name, header.tensors, file.size() - header.data_begin);
  return header;
}

}  // namespace refract
