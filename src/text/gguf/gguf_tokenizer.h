// The tokenizer that a GGUF file holds in its settings (tokenizer.ggml.*).
#pragma once
#include <filesystem>
#include <memory>

#include "core/gguf/gguf_metadata.h"
#include "text/hf_settings.h"
#include "text/tokenizer.h"

namespace refract {

// Kinds of tokens in tokenizer.ggml.token_type; SentencePiece has the same.
inline constexpr int32_t kGgufNormal = 1, kGgufUnknown = 2, kGgufControl = 3, kGgufUserDefined = 4,
                         kGgufUnused = 5, kGgufByte = 6;

// refract's own setting: a SentencePiece tokenizer that puts a space behind added tokens too, which
// transformers calls legacy.
inline constexpr const char* kGgufLegacy = "refract.tokenizer.legacy";

bool has_gguf_tokenizer(const GgufMetadata& settings);

// The files that a Hugging Face folder with this tokenizer has: tokenizer.json for byte-level BPE
// ("gpt2"), tokenizer.model for SentencePiece ("llama"), tokenizer_config.json with the special
// tokens, and the chat template. A tokenizer.huggingface.json in the settings is the
// tokenizer.json. Fails, naming the file, for other kinds and for what does not fit together.
TokenizerFiles gguf_tokenizer_files(const GgufMetadata& settings);

// Of those files. `where` names the file in errors.
std::unique_ptr<Tokenizer> make_gguf_tokenizer(const GgufMetadata& settings);
std::unique_ptr<Tokenizer> open_gguf_tokenizer(const std::filesystem::path& path);

// Null where the file has none.
std::unique_ptr<Tokenizer> find_gguf_tokenizer(const std::filesystem::path& path);

}  // namespace refract
