// SentencePiece models (tokenizer.model), run by its library.
#pragma once
#include <map>
#include <memory>
#include <string>

#include "text/tokenizer.h"

namespace refract {

// `files` are written as they are by save(), name to bytes; among them "tokenizer.model", and
// perhaps a tokenizer.json with the same vocabulary and those of hf_settings.h, whose added and
// special tokens are found in a text as transformers finds them. `config_json` is the text of the
// model's config.json, if there is one. `where` names the tokenizer in errors.
//
// User-defined symbols of the model are always recognised in a text. Its control symbols (<s>,
// </s>) are where the files beside it name them, and never otherwise, as SentencePiece does.
std::unique_ptr<Tokenizer> make_sentencepiece_tokenizer(std::map<std::string, std::string> files,
                                                        const std::string& where,
                                                        const std::string& config_json = "");

}  // namespace refract
