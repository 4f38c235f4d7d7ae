#include "formats/gguf/gguf_names.h"

#include <fmt/ranges.h>

#include <vector>

#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

// A Mistral without a sliding window is a llama there; the first of a name is the one that is read.
constexpr GgufArchitecture kArchitectures[] = {{"llama", "llama", true},
                                               {"llama", "mistral", true},
                                               {"qwen2", "qwen2", false},
                                               {"qwen3", "qwen3", false}};

struct GgufName {
  std::string_view gguf, hf;
};
constexpr GgufName kModelNames[] = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
constexpr GgufName kLayerParts[] = {
    {"attn_norm", "input_layernorm"},    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},      {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"}, {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"}, {"ffn_norm", "post_attention_layernorm"},
    {"ffn_gate", "mlp.gate_proj"},       {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"}};

// Translates by the tables: `from` and `to` are members of GgufName, `layer` and `other_layer` what
// stands before a layer's number.
std::optional<std::string> translate(std::string_view name, std::string_view GgufName::*from,
                                     std::string_view GgufName::*to, std::string_view layer,
                                     std::string_view other_layer) {
  const size_t last = name.rfind('.');
  if (last == std::string_view::npos) return std::nullopt;
  const std::string_view kind = name.substr(last);
  if (kind != ".weight" && kind != ".bias") return std::nullopt;
  std::string_view module = name.substr(0, last);
  for (const GgufName& known : kModelNames) {
    if (known.*from == module) return fmt::format("{}{}", known.*to, kind);
  }
  if (!module.starts_with(layer)) return std::nullopt;
  module.remove_prefix(layer.size());
  const size_t dot = module.find('.');
  if (dot == 0 || dot == std::string_view::npos) return std::nullopt;
  const std::string_view number = module.substr(0, dot), part = module.substr(dot + 1);
  if (number.find_first_not_of("0123456789") != std::string_view::npos) return std::nullopt;
  for (const GgufName& known : kLayerParts) {
    if (known.*from == part) return fmt::format("{}{}.{}{}", other_layer, number, known.*to, kind);
  }
  return std::nullopt;
}

constexpr std::string_view kGgufLayer = "blk.", kHfLayer = "model.layers.";

}  // namespace

const GgufArchitecture& gguf_architecture(std::string_view name, const std::string& where) {
  std::vector<std::string_view> names;
  for (const GgufArchitecture& known : kArchitectures) {
    if (known.name == name) return known;
    if (names.empty() || names.back() != known.name) names.push_back(known.name);
  }
  fail("'{}': models of the architecture '{}' are not supported ({} are)", where, shown(name),
       fmt::join(names, ", "));
}

const GgufArchitecture* gguf_architecture_of(std::string_view family) {
  for (const GgufArchitecture& known : kArchitectures) {
    if (known.family == family) return &known;
  }
  return nullptr;
}

std::optional<std::string> hf_name_of_gguf(std::string_view name) {
  return translate(name, &GgufName::gguf, &GgufName::hf, kGgufLayer, kHfLayer);
}

std::optional<std::string> gguf_name_of_hf(std::string_view name) {
  return translate(name, &GgufName::hf, &GgufName::gguf, kHfLayer, kGgufLayer);
}

bool is_query_or_key(std::string_view hf_name) {
  return hf_name.find(".q_proj.") != std::string_view::npos ||
         hf_name.find(".k_proj.") != std::string_view::npos;
}

}  // namespace refract
