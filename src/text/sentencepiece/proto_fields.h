// The fields of a message of protocol buffers, one after another, without a description of it.
// https://protobuf.dev/programming-guides/encoding/
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace refract {

struct ProtoField {
  uint64_t number = 0;
  uint64_t value = 0;      // of a number, as bits
  std::string_view bytes;  // of a text or a message
  bool is_bytes = false;
};

class ProtoFields {
 public:
  // Both must outlive it. `where` names the file in the error about a damaged message.
  ProtoFields(std::string_view message, const std::string& where) : rest_(message), where_(where) {}

  std::optional<ProtoField> next();

 private:
  [[noreturn]] void damaged() const;
  std::string_view take(uint64_t length);
  uint64_t varint();

  std::string_view rest_;
  const std::string& where_;
};

}  // namespace refract
