// SentencePiece models (tokenizer.model), run by its library.
#pragma once
#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace refract {

// From the bytes of a tokenizer.model; `where` names it in errors. User-defined symbols of the
// model are always recognised in a text, its control symbols (<s>, </s>) never, as SentencePiece
// does.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::string model,
                                                        const std::string& where);

}  // namespace refract
