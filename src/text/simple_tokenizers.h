// Tokenizers without a trained vocabulary.
#pragma once
#include <memory>
#include <string_view>

#include "text/tokenizer.h"

namespace refract {

// Ids 0 to 255 are the bytes, 256 is the end of text.
std::unique_ptr<Tokenizer> make_byte_tokenizer();

// From the contents of a chars.json; `where` names it in errors.
std::unique_ptr<Tokenizer> read_char_tokenizer(std::string_view chars_json,
                                               const std::string& where);

}  // namespace refract
