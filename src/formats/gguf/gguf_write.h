// Writing GGUF files.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "core/gguf/gguf_types.h"
#include "core/gguf/metadata_writer.h"
#include "formats/safetensors_write.h"
#include "model/decoder.h"
#include "text/hf_settings.h"

namespace refract {

// Writes `path` atomically: version 3, aligned to 32 bytes, tensors in the order given. `type` is
// that of the matrices: kGgufF32, kGgufF16, kGgufBF16 or kGgufQ8_0 (rows that are no whole blocks
// of 32 become F16 then). What has one dimension stays F32. Fails for a Q8_0 matrix with elements
// that are not finite or beyond its scale.
void write_gguf(const std::filesystem::path& path, const GgufMetadataWriter& settings,
                const std::vector<TensorSource>& tensors, uint32_t type);

struct GgufSaveOptions {
  uint32_t type = kGgufF32;
  std::string family;             // Hugging Face's model_type, as hf_family() says
  std::string name;               // general.name
  std::string config;             // text of the config.json that the model would be saved with
  TokenizerFiles tokenizer = {};  // empty: none
};

// Writes a model, its transformed layers as the dense weights they multiply by. Returns what should
// be known of its tokenizer (add_gguf_tokenizer) and its window where others read it, or nothing.
std::string save_gguf(Decoder& decoder, const std::filesystem::path& path,
                      const GgufSaveOptions& options);

}  // namespace refract
