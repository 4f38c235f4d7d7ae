// Where generation without a prompt starts.
#pragma once
#include "formats/carried.h"
#include "text/tokenizer.h"

namespace refract {

// The bos_token_id that is carried (generation_config.json's, else config.json's); without one the
// tokenizer's end of text, which stands before every document but the first; else id 0.
TokenId start_token(const Carried& carried, const Tokenizer& tokenizer);

}  // namespace refract
