// How a GGUF file names the normalizer and pre-tokenizer of a byte-level BPE
// (tokenizer.ggml.pre; the names are llama.cpp's).
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace refract {

struct GgufFront {
  std::string normalizer, pre_tokenizer;  // as a tokenizer.json has them
  bool ignore_merges = false;             // of its model
  bool adds_bos = false;                  // where tokenizer.ggml.add_bos_token says nothing
};

// Fails for a name that is not known here; `where` is the file. "default" and nothing at all, which
// old files have, are GPT-2's, with a warning.
GgufFront gguf_front(const std::string& name, const std::string& where);

// The name for the front of a tokenizer.json; empty where there is none.
std::string gguf_pre_name(const nlohmann::json& tokenizer);

}  // namespace refract
