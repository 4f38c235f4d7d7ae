#include "formats/families/llama.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "core/error.h"

namespace refract {
namespace {

using nlohmann::json;

constexpr const char *kSlidingType = "sliding_attention", *kFullType = "full_attention";

// What differs where a config.json does not say it.
struct Defaults {
  int64_t vocabulary = 0, positions = 0;
  int64_t key_value_heads = 0;  // 0: as many as query heads, which is also what null stands for
  int64_t head_dim = 0;         // 0: hidden_size / heads
};

// What all of them have.
ModelConfig from_any(const HfKeys& keys, const Defaults& defaults) {
  const std::string act = keys.text("hidden_act", "silu");
  if (act != "silu" && act != "swish") keys.complain("hidden_act", "silu");
  if (keys.number("partial_rotary_factor", 1) != 1) keys.complain("partial_rotary_factor", "1");
  ModelConfig c;
  c.norm = "rmsnorm";
  c.position = "rope";
  c.hidden_act = "swiglu";
  c.vocab_size = keys.count("vocab_size", defaults.vocabulary);
  c.hidden_size = keys.count("hidden_size");
  c.intermediate_size = keys.count("intermediate_size");
  c.num_hidden_layers = keys.count("num_hidden_layers");
  c.num_attention_heads = keys.count("num_attention_heads");
  const bool left_out = !keys.stands("num_key_value_heads") && defaults.key_value_heads > 0;
  c.num_key_value_heads = keys.count("num_key_value_heads",
                                     left_out ? defaults.key_value_heads : c.num_attention_heads);
  c.head_dim = keys.has("head_dim") ? keys.count("head_dim") : defaults.head_dim;
  c.max_position_embeddings = keys.count("max_position_embeddings", defaults.positions);
  c.norm_eps = keys.number("rms_norm_eps", 1e-6);
  c.attention_bias = c.attention_output_bias = c.mlp_bias = false;
  c.tie_word_embeddings = keys.flag("tie_word_embeddings", false);
  c.attention_dropout = keys.number("attention_dropout", 0);
  c.initializer_range = keys.number("initializer_range", 0.02);
  read_rope(keys, c, /*partial=*/false);
  return c;
}

// Of Qwen: layer_types says which layers slide; without it those from max_window_layers on do.
void read_qwen_window(const HfKeys& keys, ModelConfig& c) {
  c.layer_types = keys.texts("layer_types");
  if (!keys.flag("use_sliding_window", false)) {
    if (std::find(c.layer_types.begin(), c.layer_types.end(), kSlidingType) != c.layer_types.end())
      keys.complain("layer_types", "use_sliding_window with a sliding_window beside it");
    return;
  }
  if (keys.stands("sliding_window") && !keys.has("sliding_window")) return;
  c.sliding_window = keys.count("sliding_window", 4096);
  if (!c.layer_types.empty()) return;
  const int64_t first =
      keys.number("max_window_layers", 28) == 0 ? 0 : keys.count("max_window_layers", 28);
  if (first == 0) return;
  if (first >= c.num_hidden_layers) {
    c.sliding_window = 0;
    return;
  }
  constexpr int64_t kMost = 100'000;  // nobody vouches for the number
  if (c.num_hidden_layers > kMost)
    keys.complain("num_hidden_layers", fmt::format("{} layers at most", kMost));
  for (int64_t i = 0; i < c.num_hidden_layers; ++i)
    c.layer_types.emplace_back(i < first ? kFullType : kSlidingType);
}

json to_any(const ModelConfig& c, const char* architecture) {
  return {{"architectures", {architecture}},
          {"hidden_act", "silu"},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"num_key_value_heads", c.num_key_value_heads},
          {"head_dim", c.head_dim},
          {"max_position_embeddings", c.max_position_embeddings},
          {"rms_norm_eps", c.norm_eps},
          {"attention_dropout", c.attention_dropout},
          {"rope_parameters", rope_parameters_json(c)},
          {"rope_theta", c.rope_theta},
          {"rope_scaling", rope_scaling_json(c)}};
}

void write_qwen_window(const ModelConfig& c, json& tree) {
  const bool slides = c.sliding_window > 0;
  json types = json::array();
  int64_t first = c.num_hidden_layers;  // that slides
  for (int64_t i = 0; i < c.num_hidden_layers; ++i) {
    const auto at = static_cast<size_t>(i);
    const bool sliding = slides && (c.layer_types.empty() || c.layer_types[at] == kSlidingType);
    if (sliding) first = std::min(first, i);
    types.push_back(sliding ? kSlidingType : kFullType);
  }
  tree["use_sliding_window"] = slides;
  tree["sliding_window"] = slides ? json(c.sliding_window) : json();
  tree["max_window_layers"] = first;
  tree["layer_types"] = std::move(types);
}

// What stands against all of them, and against one by what it has beyond the others.
std::vector<std::string> against_any(const ModelConfig& c, std::set<std::string> extras) {
  extras.insert("dynamic rope_scaling");
  std::vector<std::string> reasons = unknown_extras(model_plan(c), extras);
  const auto want = [&](bool good, std::string reason) {
    if (!good) reasons.push_back(std::move(reason));
  };
  want(c.rms(), "norm = layernorm");
  want(c.position == "rope", "position = " + c.position);
  want(c.partial_rotary_factor == 1, "partial_rotary_factor");
  want(c.gated(), "hidden_act = " + c.hidden_act);
  want(!c.scale_attn_by_inverse_layer_idx, "scale_attn_by_inverse_layer_idx");
  return reasons;
}

// A window that no sequence outgrows is no extra, but a setting all the same.
void against_windows(const ModelConfig& c, std::vector<std::string>& reasons) {
  if (c.sliding_window > 0) reasons.emplace_back("sliding_window");
}

void against_uneven_biases(const ModelConfig& c, std::vector<std::string>& reasons) {
  if (c.attention_bias != c.attention_output_bias)
    reasons.emplace_back("biases of q, k and v but not of o, or the reverse");
}

void against_mlp_biases(const ModelConfig& c, std::vector<std::string>& reasons) {
  if (c.mlp_bias) reasons.emplace_back("biases in the feed-forward");
}

}  // namespace

ModelConfig from_llama(const HfKeys& keys) {
  ModelConfig c = from_any(keys, {.vocabulary = 32000, .positions = 2048});
  c.attention_bias = c.attention_output_bias = keys.flag("attention_bias", false);
  c.mlp_bias = keys.flag("mlp_bias", false);
  return c;
}

ModelConfig from_mistral(const HfKeys& keys) {
  ModelConfig c = from_any(keys, {.vocabulary = 32000, .positions = 131072, .key_value_heads = 8});
  if (!keys.stands("sliding_window") || keys.has("sliding_window"))
    c.sliding_window = keys.count("sliding_window", 4096);
  // transformers gives Mistral one mask for all layers, whatever such a list says.
  const std::vector<std::string> types = keys.texts("layer_types");
  const char* all = c.sliding_window > 0 ? kSlidingType : kFullType;
  if (std::count(types.begin(), types.end(), all) != static_cast<int64_t>(types.size()))
    keys.complain("layer_types", fmt::format("\"{}\" for every layer of a Mistral", all));
  return c;
}

ModelConfig from_qwen2(const HfKeys& keys) {
  ModelConfig c = from_any(keys, {.vocabulary = 151936, .positions = 32768, .key_value_heads = 32});
  c.attention_bias = true;
  read_qwen_window(keys, c);
  return c;
}

ModelConfig from_qwen3(const HfKeys& keys) {
  ModelConfig c = from_any(
      keys, {.vocabulary = 151936, .positions = 32768, .key_value_heads = 32, .head_dim = 128});
  c.attention_bias = c.attention_output_bias = keys.flag("attention_bias", false);
  c.qk_norm = true;
  read_qwen_window(keys, c);
  return c;
}

json to_llama(const ModelConfig& c) {
  json tree = to_any(c, "LlamaForCausalLM");
  tree["attention_bias"] = c.attention_bias;
  tree["mlp_bias"] = c.mlp_bias;
  return tree;
}

json to_mistral(const ModelConfig& c) {
  json tree = to_any(c, "MistralForCausalLM");
  tree["sliding_window"] = c.sliding_window > 0 ? json(c.sliding_window) : json();
  return tree;
}

json to_qwen2(const ModelConfig& c) {
  json tree = to_any(c, "Qwen2ForCausalLM");
  write_qwen_window(c, tree);
  return tree;
}

json to_qwen3(const ModelConfig& c) {
  json tree = to_any(c, "Qwen3ForCausalLM");
  tree["attention_bias"] = c.attention_bias;
  write_qwen_window(c, tree);
  return tree;
}

std::vector<std::string> against_llama(const ModelConfig& c) {
  std::vector<std::string> reasons = against_any(c, {"sliding_window"});
  against_windows(c, reasons);
  against_uneven_biases(c, reasons);
  if (c.hidden_size % c.num_attention_heads != 0)
    reasons.emplace_back("a hidden_size that num_attention_heads does not divide");
  return reasons;
}

std::vector<std::string> against_mistral(const ModelConfig& c) {
  std::vector<std::string> reasons = against_any(c, {"sliding_window"});
  if (c.attention_bias || c.attention_output_bias) reasons.emplace_back("biases in the attention");
  against_mlp_biases(c, reasons);
  if (!c.layer_types.empty()) reasons.emplace_back("layer_types");
  return reasons;
}

std::vector<std::string> against_qwen2(const ModelConfig& c) {
  std::vector<std::string> reasons = against_any(c, {"sliding_window"});
  if (!c.attention_bias || c.attention_output_bias)
    reasons.emplace_back("biases other than those of q, k and v");
  against_mlp_biases(c, reasons);
  return reasons;
}

std::vector<std::string> against_qwen3(const ModelConfig& c) {
  std::vector<std::string> reasons = against_any(c, {"sliding_window", "qk_norm"});
  if (!c.qk_norm) reasons.emplace_back("q and k without norms");
  against_uneven_biases(c, reasons);
  against_mlp_biases(c, reasons);
  return reasons;
}

std::vector<StoredTensor> llama_layout(const ModelPlan& plan) {
  std::vector<std::string> names = {plan.tokens.name};
  const auto add_linear = [&](const ProjectionSpec& group) {
    for (const LinearSpec& member : group.members) {
      names.push_back(member.name + ".weight");
      if (member.bias) names.push_back(member.name + ".bias");
    }
  };
  for (const LayerPlan& layer : plan.layers) {
    names.push_back(layer.input_norm.name + ".weight");
    add_linear(layer.qkv);
    if (layer.q_norm) names.push_back(layer.q_norm->name + ".weight");
    if (layer.k_norm) names.push_back(layer.k_norm->name + ".weight");
    add_linear(layer.output);
    names.push_back(layer.post_attention_norm.name + ".weight");
    add_linear(layer.up);
    add_linear(layer.down);
  }
  names.push_back(plan.final_norm.name + ".weight");
  if (plan.head) names.push_back(plan.head->name);
  std::vector<StoredTensor> all;
  for (const std::string& name : names) all.push_back({name, {name}});
  return all;
}

std::vector<StoredName> llama_names(std::string name) {
  const bool bare =
      name.starts_with("layers.") || name == "embed_tokens.weight" || name == "norm.weight";
  if (bare) name.insert(0, "model.");  // a LlamaModel without its head has no prefix
  return {{std::move(name)}};
}

}  // namespace refract
