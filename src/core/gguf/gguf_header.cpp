#include "core/gguf/gguf_header.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <system_error>
#include <utility>

#include "core/error.h"
#include "core/foreign_bytes.h"
#include "core/untrusted.h"

namespace refract {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF is read as it lies in memory");

constexpr std::string_view kGgufMagic = "GGUF";
constexpr uint64_t kLongestKey = 65535, kLongestTensorName = 64;
constexpr uint32_t kMostDimensions = 4;
// The fewest bytes of a setting (its name's length, one character, kind, one byte) and of a
// tensor's description, for counts that a file can't hold.
constexpr uint64_t kLeastSetting = 8 + 1 + 4 + 1, kLeastTensor = 8 + 1 + 4 + 4 + 8;

// Reads a file from front to back and never past its end.
class GgufReader {
 public:
  GgufReader(std::span<const std::byte> file, std::string where)
      : file_(file), where_(std::move(where)) {}

  uint64_t position() const { return at_; }
  uint64_t left() const { return file_.size() - at_; }
  const std::string& where() const { return where_; }
  void name(std::string what) { what_ = std::move(what); }

  std::span<const std::byte> take(uint64_t bytes) {
    if (bytes > left()) {
      fail("'{}' ends within {}: {} bytes are needed and {} are left; it is damaged or incomplete",
           where_, what_, bytes, left());
    }
    const auto taken = file_.subspan(at_, bytes);
    at_ += bytes;
    return taken;
  }

  template <class T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }

  std::string_view text() {
    const auto bytes = take(number<uint64_t>());
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  std::span<const std::byte> file_;
  std::string where_, what_ = "its first bytes";
  uint64_t at_ = 0;
};

GgufKind read_kind(GgufReader& reader, std::string_view key) {
  const auto kind = reader.number<uint32_t>();
  if (kind > static_cast<uint32_t>(GgufKind::kF64))
    fail("'{}': the setting {} is of the kind {}, which GGUF does not have", reader.where(),
         shown(key), kind);
  return static_cast<GgufKind>(kind);
}

void check_flags(const GgufReader& reader, std::string_view key, std::span<const std::byte> flags) {
  for (const std::byte flag : flags) {
    if (static_cast<uint8_t>(flag) > 1)
      fail("'{}': the setting {} is {}, which is neither true (1) nor false (0)", reader.where(),
           shown(key), static_cast<int>(flag));
  }
}

void read_elements(GgufReader& reader, std::string_view key, GgufValue& value) {
  value.element = read_kind(reader, key);
  value.count = reader.number<uint64_t>();
  if (value.element == GgufKind::kList)
    fail("'{}': the setting {} is a list of lists, which is not supported", reader.where(),
         shown(key));
  const bool texts = value.element == GgufKind::kText;
  const uint64_t least = texts ? sizeof(uint64_t) : gguf_width(value.element);
  if (value.count > reader.left() / least)
    fail("'{}': the setting {} says that it has {} elements, more than the file holds",
         reader.where(), shown(key), value.count);
  if (!texts) {
    value.bytes = reader.take(value.count * least);
    if (value.element == GgufKind::kBool) check_flags(reader, key, value.bytes);
    return;
  }
  GgufReader ahead = reader;
  const uint64_t begin = reader.position();
  for (uint64_t i = 0; i < value.count; ++i) ahead.text();
  value.bytes = reader.take(ahead.position() - begin);
}

GgufValue read_value(GgufReader& reader, std::string_view key) {
  GgufValue value;
  value.kind = read_kind(reader, key);
  if (value.kind == GgufKind::kList) {
    read_elements(reader, key, value);
  } else if (value.kind == GgufKind::kText) {
    value.bytes = reader.take(reader.number<uint64_t>());
  } else {
    value.bytes = reader.take(gguf_width(value.kind));
    if (value.kind == GgufKind::kBool) check_flags(reader, key, value.bytes);
  }
  return value;
}

void check_magic(std::span<const std::byte> file, const std::string& where) {
  const std::string_view head(reinterpret_cast<const char*>(file.data()),
                              std::min<size_t>(file.size(), 512));
  if (head.starts_with(kGgufMagic)) return;
  refuse_foreign_bytes(where, head, "a GGUF model");
  fail("'{}' is not a GGUF model: it does not begin with GGUF", where);
}

void check_version(uint32_t version, const std::string& where) {
  if (version == 2 || version == 3) return;
  if (version == 0x02000000 || version == 0x03000000)
    fail("'{}' is a big-endian GGUF file; only little-endian ones are read", where);
  fail("'{}' is GGUF of version {}; versions 2 and 3 are read", where, version);
}

void read_settings(GgufReader& reader, uint64_t count, GgufMetadata& settings) {
  for (uint64_t i = 0; i < count; ++i) {
    reader.name(fmt::format("its setting {} of {}", i + 1, count));
    const std::string key(reader.text());
    if (key.empty() || key.size() > kLongestKey)
      fail("'{}': the name of setting {} has {} bytes; 1 to {} are possible", reader.where(), i + 1,
           key.size(), kLongestKey);
    reader.name("the setting " + shown(key));
    if (!settings.add(key, read_value(reader, key)))
      fail("'{}': the setting {} stands there twice", reader.where(), shown(key));
  }
}

uint64_t alignment_of(const GgufMetadata& settings) {
  const int64_t alignment = settings.whole("general.alignment", kGgufAlignment);
  if (alignment < 8 || alignment > (1 << 30) ||
      !std::has_single_bit(static_cast<uint64_t>(alignment)))
    settings.complain("general.alignment", "a power of two from 8 to 2^30");
  return static_cast<uint64_t>(alignment);
}

// Bytes of a tensor, or nothing where no file can hold them or its rows are not whole blocks.
std::optional<uint64_t> byte_count(const GgufTensor& tensor) {
  const uint64_t row = tensor.shape.empty() ? 1 : static_cast<uint64_t>(tensor.shape.back());
  if (row % tensor.type->elements != 0) return std::nullopt;
  uint64_t elements = 1;
  for (const int64_t size : tensor.shape) {
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(size), &elements))
      return std::nullopt;
  }
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / tensor.type->elements, tensor.type->bytes, &bytes) ||
      elements > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
    return std::nullopt;
  return bytes;
}

// With its offset in `begin` and where it ends from there in `end`.
GgufTensor read_tensor(GgufReader& reader) {
  GgufTensor tensor;
  tensor.name = reader.text();
  if (tensor.name.empty() || tensor.name.size() > kLongestTensorName)
    fail("'{}': the tensor '{}' has a name of {} bytes; 1 to {} are possible", reader.where(),
         shown(tensor.name), tensor.name.size(), kLongestTensorName);
  reader.name(fmt::format("the description of the tensor '{}'", shown(tensor.name)));
  const auto dimensions = reader.number<uint32_t>();
  if (dimensions > kMostDimensions)
    fail("'{}': the tensor '{}' has {} dimensions; at most {} are possible", reader.where(),
         shown(tensor.name), dimensions, kMostDimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto size = reader.number<uint64_t>();
    if (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      fail("'{}': the tensor '{}' has a dimension of size {}", reader.where(), shown(tensor.name),
           size);
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  const auto number = reader.number<uint32_t>();
  tensor.type = find_gguf_type(number);
  if (!tensor.type)
    fail("'{}': the tensor '{}' is of the type number {}, which is not known here", reader.where(),
         shown(tensor.name), number);
  tensor.begin = reader.number<uint64_t>();
  const std::optional<uint64_t> bytes = byte_count(tensor);
  if (!bytes || __builtin_add_overflow(tensor.begin, *bytes, &tensor.end))
    fail(
        "'{}': the tensor '{}' can't be {}: that is not a whole number of blocks, or more than "
        "any file holds",
        reader.where(), shown(tensor.name), tensor.describe());
  return tensor;
}

// Turns offsets into bytes of the file.
void place(GgufHeader& header, uint64_t header_bytes, uint64_t file_bytes) {
  const std::string& where = header.settings.where();
  const uint64_t alignment = alignment_of(header.settings);
  if (header.tensors.empty()) return;
  const uint64_t begin = (header_bytes + alignment - 1) / alignment * alignment;
  const uint64_t room = file_bytes > begin ? file_bytes - begin : 0;
  std::vector<GgufTensor*> by_place;
  for (GgufTensor& tensor : header.tensors) {
    if (tensor.begin % alignment != 0)
      fail("'{}': the tensor '{}' begins at {}, which is no multiple of the alignment {}", where,
           shown(tensor.name), tensor.begin, alignment);
    if (tensor.end > room)
      fail(
          "'{}': the tensor '{}' ends at byte {} of the tensors, but the file holds {}; it is "
          "damaged or incomplete",
          where, shown(tensor.name), tensor.end, room);
    by_place.push_back(&tensor);
  }
  std::sort(by_place.begin(), by_place.end(),
            [](const GgufTensor* a, const GgufTensor* b) { return a->begin < b->begin; });
  for (size_t i = 1; i < by_place.size(); ++i) {
    if (by_place[i]->begin < by_place[i - 1]->end)
      fail("'{}': the tensors '{}' and '{}' overlap", where, shown(by_place[i - 1]->name),
           shown(by_place[i]->name));
  }
  for (GgufTensor& tensor : header.tensors) {
    tensor.begin += begin;
    tensor.end += begin;
  }
}

}  // namespace

int64_t GgufTensor::numel() const {
  int64_t elements = 1;
  for (const int64_t size : shape) elements *= size;
  return elements;
}

std::string GgufTensor::describe() const {
  return fmt::format("{} [{}]", type->name, fmt::join(shape, ", "));
}

const GgufTensor* GgufHeader::find(std::string_view name) const {
  const auto found = index.find(name);
  return found == index.end() ? nullptr : &tensors[found->second];
}

GgufHeader read_gguf_header(std::span<const std::byte> file, const std::filesystem::path& path) {
  const std::string where = path.string();
  check_magic(file, where);
  GgufReader reader(file, where);
  reader.take(kGgufMagic.size());
  check_version(reader.number<uint32_t>(), where);
  const auto tensors = reader.number<uint64_t>(), settings = reader.number<uint64_t>();
  if (settings > reader.left() / kLeastSetting || tensors > reader.left() / kLeastTensor)
    fail(
        "'{}' says that it has {} settings and {} tensors, more than it can hold; it is damaged "
        "or incomplete",
        where, settings, tensors);
  GgufHeader header{GgufMetadata(where), {}, {}};
  read_settings(reader, settings, header.settings);
  for (uint64_t i = 0; i < tensors; ++i) {
    reader.name(fmt::format("the description of its tensor {} of {}", i + 1, tensors));
    header.tensors.push_back(read_tensor(reader));
    const std::string& name = header.tensors.back().name;
    if (!header.index.emplace(name, i).second)
      fail("'{}': two tensors are named '{}'", where, shown(name));
  }
  place(header, reader.position(), file.size());
  return header;
}

bool is_gguf_file(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  if (path.extension() == ".gguf") return true;
  char head[4] = {};
  std::ifstream(path, std::ios::binary).read(head, sizeof(head));
  return std::string_view(head, sizeof(head)) == kGgufMagic;
}

}  // namespace refract
