// GPT-2's reversible map between bytes and printable characters, in which the vocabularies of
// byte-level BPE are written: printable Latin-1 bytes stand for themselves, the others for U+0100,
// U+0101, ...
#pragma once
#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace refract {

// The character of every byte.
const std::array<char32_t, 256>& byte_characters();

// Bytes to printable characters, in UTF-8.
std::string bytes_to_characters(std::string_view bytes);

// The way back; none where a character stands for no byte or the text is not UTF-8.
std::optional<std::string> characters_to_bytes(std::string_view text);

}  // namespace refract
