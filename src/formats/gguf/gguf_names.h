// Which families of models GGUF files hold, and what their tensors are called there.
#pragma once
#include <optional>
#include <string>
#include <string_view>

namespace refract {

struct GgufArchitecture {
  std::string_view name;    // general.architecture
  std::string_view family;  // Hugging Face's model_type
  // The rows of q and k are stored with the two halves of each head interleaved: [H, 2, D / 2] as
  // [H, D / 2, 2].
  bool interleaved;
};

// Fails for others, with the list; `where` is the file.
const GgufArchitecture& gguf_architecture(std::string_view name, const std::string& where);
// Of a family that is written; null where GGUF has none here.
const GgufArchitecture* gguf_architecture_of(std::string_view family);

// "blk.3.attn_q.weight" <-> "model.layers.3.self_attn.q_proj.weight"; none for other names.
std::optional<std::string> hf_name_of_gguf(std::string_view name);
std::optional<std::string> gguf_name_of_hf(std::string_view name);

// Whether a tensor of Hugging Face's name is one of q or k, weight or bias.
bool is_query_or_key(std::string_view hf_name);

}  // namespace refract
