// The settings of a GGUF file: typed values by name, which stay where they lie in the file.
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace refract {

enum class GgufKind : uint32_t {
  kU8,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kText,
  kList,
  kU64,
  kI64,
  kF64,
};

// Bytes of a number of this kind; 0 for text and lists.
size_t gguf_width(GgufKind kind);

struct GgufValue {
  GgufKind kind = GgufKind::kU8;
  GgufKind element = GgufKind::kU8;  // of a list
  uint64_t count = 1;                // of a list's elements
  std::span<const std::byte> bytes;  // a number, the bytes of a text, or a list's elements
};

// Typed access; every complaint names the file and the key. The file's bytes must outlive it.
class GgufMetadata {
 public:
  explicit GgufMetadata(std::string where) : where_(std::move(where)) {}

  bool has(std::string_view key) const { return values_.contains(key); }
  bool is_list(std::string_view key) const;
  bool add(std::string key, const GgufValue& value);  // false where the key is there already

  // Each fails for a value of another kind, and for a whole number that an int64 can't hold.
  int64_t whole(std::string_view key, int64_t otherwise) const;
  int64_t whole(std::string_view key) const;  // fails where there is none
  double number(std::string_view key, double otherwise) const;
  bool flag(std::string_view key, bool otherwise) const;
  std::string text(std::string_view key, std::string_view otherwise) const;
  // Empty where there is no such list.
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<int64_t> wholes(std::string_view key) const;
  std::vector<float> numbers(std::string_view key) const;

  [[noreturn]] void complain(std::string_view key, std::string_view wanted) const;
  const std::string& where() const { return where_; }

 private:
  const GgufValue* find(std::string_view key) const;
  const GgufValue* find_list(std::string_view key, std::string_view wanted) const;
  int64_t whole_of(GgufKind kind, const std::byte* data, std::string_view key) const;

  std::string where_;
  std::map<std::string, GgufValue, std::less<>> values_;
};

}  // namespace refract
