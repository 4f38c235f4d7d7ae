// Sliding windows in the settings of a GGUF file: <architecture>.attention.sliding_window, and
// ...sliding_window_pattern, which says what layers have it.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string_view>

#include "core/gguf/gguf_metadata.h"
#include "core/gguf/metadata_writer.h"

namespace refract {

// Puts the file's window into the tree of a config.json, which has model_type, num_hidden_layers
// and max_position_embeddings: a llama with a window is a Mistral, a Qwen says which layers slide.
// A window that no text outgrows is none. The pattern is a list with true for each layer that
// slides, or a number n: every n-th layer does not (0: all slide). Fails, naming file and setting,
// for a pattern that does not fit the layers, and for a Mistral of which some layers don't slide.
void read_gguf_window(const GgufMetadata& settings, std::string_view architecture,
                      nlohmann::json& tree);

// Adds the window that a config.json has. Returns whether it has one.
bool add_gguf_window(GgufMetadataWriter& settings, std::string_view architecture,
                     const nlohmann::json& config);

}  // namespace refract
