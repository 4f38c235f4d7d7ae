// The settings of a GGUF file as the config.json of a Hugging Face folder, and back.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/gguf/gguf_header.h"
#include "core/gguf/metadata_writer.h"

namespace refract {

// The tensor with Llama 3's rotary scaling.
inline constexpr std::string_view kRopeDivisors = "rope_freqs.weight";

// The tree of config.json, with the special ids. `file` is the whole file, of which rope_freqs is
// read. Fails, naming file and setting, for an architecture or a setting that refract's decoder
// does not have.
nlohmann::json gguf_config(const GgufHeader& header, std::span<const std::byte> file);
nlohmann::json read_gguf_config(const std::filesystem::path& path);

// What a model's configuration is called in errors: the path of a folder's config.json, or of the
// GGUF file in its place.
std::string config_place(const std::filesystem::path& folder);

// Adds the settings that the tree of a config.json stands for, special ids among them. The result
// is rope_freqs, empty where the model needs none. Fails for what GGUF has no place for.
std::vector<float> add_gguf_config(GgufMetadataWriter& settings, const nlohmann::json& config);

}  // namespace refract
