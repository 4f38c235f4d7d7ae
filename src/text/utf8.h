// UTF-8: checks, repair, code points and normalization.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace refract {

// True for well-formed UTF-8 (Unicode table 3-7: no overlong forms, no surrogates, at most
// U+10FFFF).
bool is_valid_utf8(std::string_view text);

// Every maximal ill-formed part becomes one U+FFFD, the Unicode standard's recommendation and what
// Python's bytes.decode("utf-8", errors="replace") does.
std::string repair_utf8(std::string_view text);

// `text` itself where it is well-formed, else its repair, kept in `storage`.
std::string_view as_valid_utf8(std::string_view text, std::string& storage);

// Reads the code point at `position` of well-formed text and moves past it.
char32_t next_code_point(std::string_view text, size_t& position);

// The code point that ends at `end` of well-formed text; `end` > 0.
char32_t previous_code_point(std::string_view text, size_t end);

// Length in bytes of a code point from its first byte, in well-formed text.
size_t utf8_length(unsigned char first_byte);

// Length of `text` without the character that is cut off at its end, if there is one.
size_t complete_utf8(std::string_view text);

void append_utf8(std::string& out, char32_t code_point);

// Unicode normalization form C of well-formed text: `text` itself where nothing can change, else
// the result, kept in `storage`.
std::string_view normalize_nfc(std::string_view text, std::string& storage);

// Unicode's White_Space property, which is also \s of the regular expressions in a tokenizer.json.
bool is_white_space(char32_t code_point);

}  // namespace refract
