// BPE from a Hugging Face tokenizer.json: over bytes, or over characters that fall back to bytes.
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "text/tokenizer.h"

namespace refract {

// `files` are written as they are by save(), name to bytes; among them "tokenizer.json", or
// "vocab.json" and "merges.txt" (save() then writes a tokenizer.json too), and perhaps those of
// hf_settings.h beside them, which say what special tokens there are. `config_json` is the text of
// the model's config.json, if there is one. `where` names the tokenizer in errors.
std::unique_ptr<Tokenizer> make_hf_tokenizer(std::map<std::string, std::string> files,
                                             const std::string& where,
                                             const std::string& config_json = "");

// Whether a tokenizer.json holds what `transformers` makes from a SentencePiece model: a unigram
// model, or BPE over characters that falls back to bytes. False where it can't be read, so that
// opening it says why.
bool is_sentencepiece_translation(std::string_view tokenizer_json);

}  // namespace refract
