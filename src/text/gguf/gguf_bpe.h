// Byte-level BPE between a GGUF file's settings and a tokenizer.json.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/gguf/pre_names.h"

namespace refract {

// Views into the file's bytes.
struct GgufVocabulary {
  std::vector<std::string_view> tokens;  // by id
  std::vector<int64_t> types;            // of each, or none
  std::vector<std::string_view> merges;  // "left right"
};

// The tokenizer.json. Control and user-defined tokens are its added tokens; `first`, where it is
// not empty, is a token that stands before every text. `where` names the file in errors.
std::string gguf_bpe_json(const GgufVocabulary& vocabulary, const GgufFront& front,
                          const std::string& first, const std::string& where);

}  // namespace refract
