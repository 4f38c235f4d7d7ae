#include "text/bpe/byte_level.h"

#include "text/utf8.h"

namespace refract {
namespace {

std::array<char32_t, 256> make_byte_characters() {
  std::array<char32_t, 256> table{};
  char32_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    const bool printable =
        (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    table[byte] = printable ? byte : next++;
  }
  return table;
}

// Byte of a character below U+0144, or -1.
std::array<int, 0x144> make_character_bytes() {
  std::array<int, 0x144> table{};
  table.fill(-1);
  for (unsigned byte = 0; byte < 256; ++byte) {
    table[byte_characters()[byte]] = static_cast<int>(byte);
  }
  return table;
}

}  // namespace

const std::array<char32_t, 256>& byte_characters() {
  static const std::array<char32_t, 256> table = make_byte_characters();
  return table;
}

std::string bytes_to_characters(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size() * 2);
  for (const char c : bytes) append_utf8(out, byte_characters()[static_cast<unsigned char>(c)]);
  return out;
}

std::optional<std::string> characters_to_bytes(std::string_view text) {
  static const std::array<int, 0x144> table = make_character_bytes();
  if (!is_valid_utf8(text)) return std::nullopt;
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const char32_t c = next_code_point(text, position);
    if (c >= table.size() || table[c] < 0) return std::nullopt;
    out.push_back(static_cast<char>(table[c]));
  }
  return out;
}

}  // namespace refract
