#include "text/utf8.h"

#include <utf8proc.h>

#include <cstdlib>
#include <cstring>

#include "core/error.h"

namespace refract {
namespace {

constexpr uint64_t kHighBits = 0x8080808080808080ull;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of ASCII at the start of [position, size).
size_t ascii_run(std::string_view text, size_t position) {
  const size_t begin = position;
  while (position + 8 <= text.size()) {
    uint64_t word;
    std::memcpy(&word, text.data() + position, 8);
    if (word & kHighBits) break;
    position += 8;
  }
  while (position < text.size() && static_cast<unsigned char>(text[position]) < 0x80) ++position;
  return position - begin;
}

struct Sequence {
  size_t length;  // bytes of the sequence, or of the maximal ill-formed part
  bool valid;
};

// The sequence that starts at a byte of 0x80 or above.
Sequence scan_sequence(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) -> unsigned {
    return position + i < text.size() ? static_cast<unsigned char>(text[position + i]) : 0u;
  };
  const unsigned first = byte(0);
  if (first < 0xC2 || first > 0xF4) return {1, false};
  const size_t length = first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
  // Only the second byte's range depends on the first byte.
  const unsigned low = first == 0xE0 ? 0xA0 : first == 0xF0 ? 0x90 : 0x80;
  const unsigned high = first == 0xED ? 0x9F : first == 0xF4 ? 0x8F : 0xBF;
  if (byte(1) < low || byte(1) > high) return {1, false};
  for (size_t i = 2; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {i, false};
  }
  return {length, true};
}

// Offset of the first ill-formed byte, or the size.
size_t valid_prefix(std::string_view text) {
  size_t position = 0;
  for (;;) {
    position += ascii_run(text, position);
    if (position == text.size()) return position;
    const Sequence sequence = scan_sequence(text, position);
    if (!sequence.valid) return position;
    position += sequence.length;
  }
}

}  // namespace

bool is_valid_utf8(std::string_view text) { return valid_prefix(text) == text.size(); }

std::string repair_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 16);
  while (!text.empty()) {
    const size_t good = valid_prefix(text);
    out.append(text.substr(0, good));
    text.remove_prefix(good);
    if (text.empty()) break;
    out.append(kReplacement);
    text.remove_prefix(scan_sequence(text, 0).length);
  }
  return out;
}

std::string_view as_valid_utf8(std::string_view text, std::string& storage) {
  if (is_valid_utf8(text)) return text;
  storage = repair_utf8(text);
  return storage;
}

size_t utf8_length(unsigned char first_byte) {
  return first_byte < 0x80 ? 1 : first_byte < 0xE0 ? 2 : first_byte < 0xF0 ? 3 : 4;
}

size_t complete_utf8(std::string_view text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte >= 0xC0) return utf8_length(byte) > back ? text.size() - back : text.size();
    if (byte < 0x80) break;
  }
  return text.size();
}

char32_t next_code_point(std::string_view text, size_t& position) {
  const auto first = static_cast<unsigned char>(text[position]);
  const size_t length = utf8_length(first);
  char32_t value = length == 1 ? first : first & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    value = (value << 6) | (static_cast<unsigned char>(text[position + i]) & 0x3Fu);
  }
  position += length;
  return value;
}

char32_t previous_code_point(std::string_view text, size_t end) {
  size_t position = end - 1;
  while ((static_cast<unsigned char>(text[position]) & 0xC0) == 0x80) --position;
  return next_code_point(text, position);
}

void append_utf8(std::string& out, char32_t code_point) {
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  const auto continuation = [&](int shift) { put(0x80 | ((code_point >> shift) & 0x3F)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | (code_point >> 6));
    continuation(0);
  } else if (code_point < 0x10000) {
    put(0xE0 | (code_point >> 12));
    continuation(6);
    continuation(0);
  } else {
    put(0xF0 | (code_point >> 18));
    continuation(12);
    continuation(6);
    continuation(0);
  }
}

std::string_view normalize_nfc(std::string_view text, std::string& storage) {
  // Code points below U+0300 are their own NFC and never combine; their first bytes are below 0xCC.
  bool stable = true;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    stable &= byte < 0xCC;
  }
  if (stable) return text;
  utf8proc_uint8_t* result = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &result,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  if (size < 0) fail("NFC normalization failed: {}", utf8proc_errmsg(size));
  storage.assign(reinterpret_cast<const char*>(result), static_cast<size_t>(size));
  std::free(result);
  return storage;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

}  // namespace refract
