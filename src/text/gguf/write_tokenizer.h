// A tokenizer into the settings of a GGUF file.
#pragma once
#include <cstdint>
#include <string>

#include "core/gguf/metadata_writer.h"
#include "text/hf_settings.h"

namespace refract {

// Adds tokenizer.ggml.* for a tokenizer that save() writes as `files`, as many tokens as the model
// has embeddings, and the chat template; not the special ids, which are the model's. A byte-level
// BPE's tokenizer.json goes along whole (tokenizer.huggingface.json). Returns what others who read
// the file should know of it, in one sentence; empty where there is nothing. `config_json`: the
// text of the model's config.json, which may name the tokenizer's class, or empty.
std::string add_gguf_tokenizer(GgufMetadataWriter& settings, const TokenizerFiles& files,
                               int64_t vocab_size, const std::string& config_json = "");

}  // namespace refract
