// The settings of a GGUF file that is written, in the order in which they are added.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "core/gguf/gguf_metadata.h"

namespace refract {

class GgufMetadataWriter {
 public:
  void add_whole(std::string_view key, uint32_t value);
  void add_number(std::string_view key, float value);
  void add_flag(std::string_view key, bool value);
  void add_text(std::string_view key, std::string_view value);
  void add_texts(std::string_view key, std::span<const std::string> values);
  void add_wholes(std::string_view key, std::span<const int32_t> values);
  void add_numbers(std::string_view key, std::span<const float> values);
  void add_flags(std::string_view key, std::span<const uint8_t> values);  // 0 or 1 each

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void begin(std::string_view key, GgufKind kind);
  void begin_list(std::string_view key, GgufKind element, size_t count);

  std::string bytes_;
  uint64_t count_ = 0;
};

// A number's bytes, and a text with its length before it, as GGUF has them.
template <class T>
void append_gguf(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}
void append_gguf_text(std::string& out, std::string_view text);

}  // namespace refract
