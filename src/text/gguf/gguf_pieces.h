// SentencePiece models between a GGUF file's settings and a tokenizer.model.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace refract {

struct GgufPiece {
  std::string text;
  float score = 0;
  int32_t type = 1;  // tokenizer.ggml.token_type, which is SentencePiece's own number
};

// A model of SentencePiece's BPE without a table of its normalizer, which is what GGUF can hold.
struct GgufPieces {
  std::vector<GgufPiece> pieces;  // by id
  bool add_space_prefix = true;
  bool remove_extra_spaces = false;
  std::optional<int64_t> bos = {}, eos = {}, unknown = {};
};

// The bytes of the tokenizer.model (ModelProto of sentencepiece_model.proto).
std::string sentencepiece_model(const GgufPieces& pieces);

// The reverse; none for a model of another kind. `where` names it in errors. Special ids are left
// out.
std::optional<GgufPieces> read_sentencepiece_model(std::string_view model,
                                                   const std::string& where);

}  // namespace refract
