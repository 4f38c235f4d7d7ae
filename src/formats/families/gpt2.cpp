#include "formats/families/gpt2.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <utility>

namespace refract {
namespace {

using nlohmann::json;

// Suffixes behind "model.layers.N." and GPT-2's behind "h.N."; Conv1D weights are stored [in, out].
struct Gpt2LayerName {
  const char *ours, *gpt2;
  bool conv1d;
};
constexpr Gpt2LayerName kGpt2LayerNames[] = {
    {"input_layernorm", "ln_1", false},          {"self_attn.o_proj", "attn.c_proj", true},
    {"post_attention_layernorm", "ln_2", false}, {"mlp.up_proj", "mlp.c_fc", true},
    {"mlp.down_proj", "mlp.c_proj", true},
};

std::string gpt2_activation(const HfKeys& keys) {
  const std::string name = keys.text("activation_function", "gelu_new");
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return "gelu_tanh";
  if (name == "gelu") return "gelu";
  keys.complain("activation_function", "gelu, gelu_new or gelu_pytorch_tanh");
}

// "h.12.attn.c_proj.weight" -> {12, "attn.c_proj.weight"}; nothing where the name does not start
// so.
std::optional<std::pair<std::string, std::string>> split_layer(std::string_view name,
                                                               std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  name.remove_prefix(prefix.size());
  const size_t digits = name.find_first_not_of("0123456789");
  if (digits == 0 || digits == std::string_view::npos || name[digits] != '.') return std::nullopt;
  return std::pair(std::string(name.substr(0, digits)), std::string(name.substr(digits + 1)));
}

}  // namespace

ModelConfig from_gpt2(const HfKeys& keys) {
  if (!keys.flag("scale_attn_weights", true)) keys.complain("scale_attn_weights", "true");
  if (keys.flag("add_cross_attention", false)) keys.complain("add_cross_attention", "false");
  ModelConfig c;
  c.vocab_size = keys.count("vocab_size", 50257);
  c.hidden_size = keys.count("n_embd", 768);
  c.intermediate_size = keys.count("n_inner", 0);
  c.num_hidden_layers = keys.count("n_layer", 12);
  c.num_attention_heads = keys.count("n_head", 12);
  c.max_position_embeddings = keys.count("n_positions", 1024);
  c.norm_eps = keys.number("layer_norm_epsilon", 1e-5);
  c.hidden_act = gpt2_activation(keys);
  c.tie_word_embeddings = keys.flag("tie_word_embeddings", true);
  c.dropout = keys.number("resid_pdrop", 0.1);
  const double embeddings = keys.number("embd_pdrop", 0.1);
  if (embeddings != c.dropout) c.embedding_dropout = embeddings;
  c.attention_dropout = keys.number("attn_pdrop", 0.1);
  c.scale_attn_by_inverse_layer_idx = keys.flag("scale_attn_by_inverse_layer_idx", false);
  c.initializer_range = c.position_initializer_range = keys.number("initializer_range", 0.02);
  return c;
}

json to_gpt2(const ModelConfig& c) {
  json tree = {{"architectures", {"GPT2LMHeadModel"}},
               {"activation_function", c.hidden_act == "gelu" ? "gelu" : "gelu_new"},
               {"vocab_size", c.vocab_size},
               {"n_embd", c.hidden_size},
               {"n_inner", nullptr},
               {"n_layer", c.num_hidden_layers},
               {"n_head", c.num_attention_heads},
               {"n_positions", c.max_position_embeddings},
               {"n_ctx", c.max_position_embeddings},
               {"layer_norm_epsilon", c.norm_eps},
               {"embd_pdrop", c.dropout_of_embeddings()},
               {"resid_pdrop", c.dropout},
               {"attn_pdrop", c.attention_dropout},
               {"scale_attn_weights", true},
               {"scale_attn_by_inverse_layer_idx", c.scale_attn_by_inverse_layer_idx}};
  if (c.intermediate_size != 4 * c.hidden_size) tree["n_inner"] = c.intermediate_size;
  return tree;
}

std::vector<std::string> against_gpt2(const ModelConfig& c) {
  std::vector<std::string> reasons =
      unknown_extras(model_plan(c), std::set<std::string>{"sliding_window"});
  const auto want = [&](bool good, std::string reason) {
    if (!good) reasons.push_back(std::move(reason));
  };
  want(c.sliding_window == 0, "sliding_window");
  want(!c.rms(), "norm = rmsnorm");
  want(c.position == "learned", "position = " + c.position);
  want(!c.gated(), "hidden_act = swiglu");
  want(c.attention_bias && c.attention_output_bias && c.mlp_bias, "layers without biases");
  want(c.num_key_value_heads == c.num_attention_heads, "grouped key/value heads");
  want(c.attention_width() == c.hidden_size, "an attention width other than hidden_size");
  return reasons;
}

std::vector<StoredTensor> gpt2_layout(const ModelPlan& plan) {
  std::vector<StoredTensor> all = {{"transformer.wte.weight", {plan.tokens.name}},
                                   {"transformer.wpe.weight", {"model.embed_positions.weight"}}};
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    const std::string theirs = fmt::format("transformer.h.{}.", i);
    for (const char* kind : {"weight", "bias"}) {
      StoredTensor fused{theirs + "attn.c_attn." + kind, {}, kind == std::string("weight")};
      for (const LinearSpec& member : layer.qkv.members)
        fused.parts.push_back(fmt::format("{}.{}", member.name, kind));
      all.push_back(fused);
      for (const Gpt2LayerName& name : kGpt2LayerNames) {
        all.push_back({fmt::format("{}{}.{}", theirs, name.gpt2, kind),
                       {fmt::format("{}.{}.{}", layer.name, name.ours, kind)},
                       name.conv1d && fused.transposed});
      }
    }
  }
  for (const char* kind : {"weight", "bias"})
    all.push_back({fmt::format("transformer.ln_f.{}", kind),
                   {fmt::format("{}.{}", plan.final_norm.name, kind)}});
  if (plan.head) all.push_back({plan.head->name, {plan.head->name}});
  return all;
}

std::vector<StoredName> gpt2_names(std::string name) {
  if (name.starts_with("transformer.")) name.erase(0, std::string("transformer.").size());
  if (name == "wte.weight") return {{"model.embed_tokens.weight"}};
  if (name == "wpe.weight") return {{"model.embed_positions.weight"}};
  if (name == "ln_f.weight" || name == "ln_f.bias") return {{"model.norm" + name.substr(4)}};
  const auto layer = split_layer(name, "h.");
  if (!layer) return {{name}};
  const auto& [index, rest] = *layer;
  if (rest == "attn.bias") return {};  // the causal mask of old files
  const size_t dot = rest.rfind('.');
  const std::string module = rest.substr(0, dot),
                    kind = dot == std::string::npos ? "" : rest.substr(dot + 1);
  const std::string ours = "model.layers." + index + ".";
  if (kind != "weight" && kind != "bias") return {{name}};
  if (module == "attn.c_attn") {
    std::vector<StoredName> parts;
    for (int64_t i = 0; i < 3; ++i) {
      parts.push_back(
          {fmt::format("{}self_attn.{}_proj.{}", ours, "qkv"[i], kind), kind == "weight", i, 3});
    }
    return parts;
  }
  for (const Gpt2LayerName& known : kGpt2LayerNames) {
    if (module == known.gpt2)
      return {{ours + known.ours + "." + kind, known.conv1d && kind == "weight"}};
  }
  return {{name}};
}

}  // namespace refract
