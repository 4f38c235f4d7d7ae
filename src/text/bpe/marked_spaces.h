// BPE over characters in which a space is the letter U+2581: what `transformers` makes from the
// SentencePiece models of Llama 2 and Mistral. Words are not cut apart, or before each space.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "text/pre_tokenizer.h"

namespace refract {

class MarkedSpaces {
 public:
  // The normalizer (none, Prepend, Replace of a space), the pre-tokenizer (none, Metaspace) and the
  // decoder (none, Replace, ByteFallback, Fuse, Strip) of a tokenizer.json; what else stands there
  // is refused by name.
  MarkedSpaces(const nlohmann::json& file, const std::string& where);

  // What the normalizer makes of a stretch between added tokens.
  std::string normalize(std::string_view stretch) const;
  // Calls `sink` on each word of a normalized stretch; `first`: the text begins with it.
  void split(std::string_view stretch, bool first, WordSink sink) const;
  // What a token of the vocabulary stands for in a text: spaces, and the byte of "<0x0A>".
  std::string bytes_of(const std::string& token) const;
  // Whether one space at the beginning of a decoded text was none of its own.
  bool strips_first_space() const { return strips_; }

 private:
  enum class Prefix { kNever, kFirst, kAlways };
  void read_normalizer(const nlohmann::json& normalizer, const std::string& where);
  void read_pre_tokenizer(const nlohmann::json& pre_tokenizer, const std::string& where);
  void read_decoder(const nlohmann::json& decoder, const std::string& where);

  bool prepends_ = false, replaces_ = false;  // the normalizer
  bool marks_ = false, cuts_ = false;         // the pre-tokenizer: spaces; before each of them
  Prefix prefix_ = Prefix::kNever;
  bool unmarks_ = false, bytes_ = false, strips_ = false;  // the decoder
};

}  // namespace refract
