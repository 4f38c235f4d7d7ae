#include "formats/families/gpt_neox.h"

#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>
#include <string_view>
#include <utility>

namespace refract {
namespace {

using nlohmann::json;

// Suffixes behind "model.layers.N." and GPT-NeoX's behind "layers.N.".
constexpr std::pair<const char*, const char*> kNeoxLayerNames[] = {
    {"input_layernorm", "input_layernorm"},
    {"post_attention_layernorm", "post_attention_layernorm"},
    {"self_attn.o_proj", "attention.dense"},
    {"mlp.up_proj", "mlp.dense_h_to_4h"},
    {"mlp.down_proj", "mlp.dense_4h_to_h"},
};
constexpr const char* kJoint = "attention.query_key_value";

std::string activation(const HfKeys& keys) {
  const std::string name = keys.text("hidden_act", "gelu");
  if (name == "gelu") return "gelu";
  if (name == "gelu_new" || name == "gelu_fast" || name == "gelu_pytorch_tanh") return "gelu_tanh";
  keys.complain("hidden_act", "gelu, gelu_new, gelu_fast or gelu_pytorch_tanh");
}

// Where in a head of theirs each channel of ours stands.
std::vector<int64_t> their_channels(int64_t width, int64_t rotary_width) {
  const int64_t half = width / 2, turning = rotary_width / 2;
  std::vector<int64_t> theirs;
  int64_t still = rotary_width;  // the next of those that don't turn
  for (int64_t i = 0; i < width; ++i) {
    const bool turns = i % half < turning;
    theirs.push_back(turns ? i % half + (i < half ? 0 : turning) : still++);
  }
  return theirs;
}

at::Tensor reordered(const at::Tensor& heads, const std::vector<int64_t>& order) {
  return heads.index_select(1, at::tensor(order, at::kLong).to(heads.device()));
}

}  // namespace

ModelConfig from_gpt_neox(const HfKeys& keys) {
  ModelConfig c;
  c.position = "rope";
  c.hidden_act = activation(keys);
  c.vocab_size = keys.count("vocab_size", 50432);
  c.hidden_size = keys.count("hidden_size", 6144);
  c.intermediate_size = keys.count("intermediate_size", 24576);
  c.num_hidden_layers = keys.count("num_hidden_layers", 44);
  c.num_attention_heads = keys.count("num_attention_heads", 64);
  c.max_position_embeddings = keys.count("max_position_embeddings", 2048);
  c.norm_eps = keys.number("layer_norm_eps", 1e-5);
  c.attention_bias = c.attention_output_bias = keys.flag("attention_bias", true);
  c.tie_word_embeddings = keys.flag("tie_word_embeddings", false);
  c.dropout = keys.number("hidden_dropout", 0);
  c.attention_dropout = keys.number("attention_dropout", 0);
  c.parallel_residual = keys.flag("use_parallel_residual", true);
  c.initializer_range = keys.number("initializer_range", 0.02);
  c.rope_theta = keys.number("rotary_emb_base", 10000);
  c.partial_rotary_factor = keys.number("rotary_pct", 0.25);
  read_rope(keys, c, /*partial=*/true);
  return c;
}

json to_gpt_neox(const ModelConfig& c) {
  json rope = rope_parameters_json(c);
  rope["partial_rotary_factor"] = c.partial_rotary_factor;
  return {{"architectures", {"GPTNeoXForCausalLM"}},
          {"hidden_act", c.hidden_act == "gelu" ? "gelu" : "gelu_pytorch_tanh"},
          {"vocab_size", c.vocab_size},
          {"hidden_size", c.hidden_size},
          {"intermediate_size", c.intermediate_size},
          {"num_hidden_layers", c.num_hidden_layers},
          {"num_attention_heads", c.num_attention_heads},
          {"max_position_embeddings", c.max_position_embeddings},
          {"layer_norm_eps", c.norm_eps},
          {"attention_bias", c.attention_bias},
          {"hidden_dropout", c.dropout},
          {"attention_dropout", c.attention_dropout},
          {"use_parallel_residual", c.parallel_residual},
          {"rotary_pct", c.partial_rotary_factor},
          {"rotary_emb_base", c.rope_theta},
          {"rope_parameters", rope},
          {"rope_scaling", rope_scaling_json(c)}};
}

std::vector<std::string> against_gpt_neox(const ModelConfig& c) {
  std::vector<std::string> reasons = unknown_extras(
      model_plan(c),
      std::set<std::string>{"parallel_residual", "dynamic rope_scaling", "sliding_window"});
  const auto want = [&](bool good, std::string reason) {
    if (!good) reasons.push_back(std::move(reason));
  };
  want(c.sliding_window == 0, "sliding_window");
  want(!c.rms(), "norm = rmsnorm");
  want(c.position == "rope", "position = " + c.position);
  want(!c.gated(), "hidden_act = swiglu");
  want(c.mlp_bias, "feed-forward without biases");
  want(c.attention_bias == c.attention_output_bias,
       "biases of q, k and v but not of o, or the reverse");
  want(c.num_key_value_heads == c.num_attention_heads, "grouped key/value heads");
  want(c.attention_width() == c.hidden_size, "an attention width other than hidden_size");
  want(!c.scale_attn_by_inverse_layer_idx, "scale_attn_by_inverse_layer_idx");
  return reasons;
}

std::vector<StoredTensor> gpt_neox_layout(const ModelPlan& plan) {
  std::vector<StoredTensor> all = {{"gpt_neox.embed_in.weight", {plan.tokens.name}}};
  for (size_t i = 0; i < plan.layers.size(); ++i) {
    const LayerPlan& layer = plan.layers[i];
    const std::string theirs = fmt::format("gpt_neox.layers.{}.", i);
    const bool biased = layer.qkv.members.front().bias;
    for (const char* kind : {"weight", "bias"}) {
      const bool bias = kind == std::string_view("bias");
      if (!bias || biased) {
        StoredTensor joint{theirs + kJoint + "." + kind, {}};
        for (const LinearSpec& member : layer.qkv.members)
          joint.parts.push_back(fmt::format("{}.{}", member.name, kind));
        joint.by_heads = true;
        all.push_back(std::move(joint));
      }
      for (const auto& [our_name, their_name] : kNeoxLayerNames) {
        if (bias && !biased && their_name == std::string_view("attention.dense")) continue;
        all.push_back({fmt::format("{}{}.{}", theirs, their_name, kind),
                       {fmt::format("{}.{}.{}", layer.name, our_name, kind)}});
      }
    }
  }
  for (const char* kind : {"weight", "bias"})
    all.push_back({fmt::format("gpt_neox.final_layer_norm.{}", kind),
                   {fmt::format("{}.{}", plan.final_norm.name, kind)}});
  if (plan.head) all.push_back({"embed_out.weight", {plan.head->name}});
  return all;
}

std::vector<StoredName> gpt_neox_names(std::string name) {
  constexpr std::string_view kPrefix = "gpt_neox.", kLayers = "layers.";
  if (name == "embed_out.weight") return {{"lm_head.weight"}};
  if (name.starts_with(kPrefix)) name.erase(0, kPrefix.size());
  if (name == "embed_in.weight") return {{"model.embed_tokens.weight"}};
  if (name == "final_layer_norm.weight") return {{"model.norm.weight"}};
  if (name == "final_layer_norm.bias") return {{"model.norm.bias"}};
  const size_t dot = name.find('.', kLayers.size());
  if (!name.starts_with(kLayers) || dot == std::string::npos) return {{name}};
  const std::string ours = "model." + name.substr(0, dot + 1), rest = name.substr(dot + 1);
  // Causal masks and frequencies of old files.
  if (rest == "attention.bias" || rest == "attention.masked_bias" ||
      rest == "attention.rotary_emb.inv_freq") {
    return {};
  }
  const size_t last = rest.rfind('.');
  const std::string module = rest.substr(0, last),
                    kind = last == std::string::npos ? "" : rest.substr(last + 1);
  if (kind != "weight" && kind != "bias") return {{name}};
  if (module == kJoint) {
    std::vector<StoredName> parts;
    for (int64_t i = 0; i < 3; ++i) {
      parts.push_back({fmt::format("{}self_attn.{}_proj.{}", ours, "qkv"[i], kind),
                       /*transposed=*/false, i, 3, /*by_heads=*/true});
    }
    return parts;
  }
  for (const auto& [our_name, their_name] : kNeoxLayerNames) {
    if (module == their_name) return {{ours + our_name + "." + kind}};
  }
  return {{name}};
}

at::Tensor join_heads(const std::vector<at::Tensor>& qkv, int64_t heads, int64_t rotary_width) {
  const int64_t width = qkv[0].size(0) / heads;
  const std::vector<int64_t> theirs = their_channels(width, rotary_width);
  std::vector<int64_t> ours(theirs.size());  // the reverse order
  for (size_t i = 0; i < theirs.size(); ++i)
    ours[static_cast<size_t>(theirs[i])] = static_cast<int64_t>(i);
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < qkv.size(); ++i) {
    const at::Tensor by_head = qkv[i].reshape({heads, width, -1});
    parts.push_back(i < 2 ? reordered(by_head, ours) : by_head);
  }
  std::vector<int64_t> shape = qkv[0].sizes().vec();
  shape[0] *= static_cast<int64_t>(qkv.size());
  return at::stack(parts, 1).reshape(shape);
}

at::Tensor part_of_heads(const at::Tensor& joint, int64_t part, int64_t heads,
                         int64_t rotary_width) {
  constexpr int64_t kParts = 3;
  const int64_t width = joint.size(0) / (kParts * heads);
  const at::Tensor by_head = joint.reshape({heads, kParts, width, -1}).select(1, part);
  std::vector<int64_t> shape = joint.sizes().vec();
  shape[0] /= kParts;
  const bool turned = part < 2;
  return (turned ? reordered(by_head, their_channels(width, rotary_width)) : by_head)
      .reshape(shape);
}

}  // namespace refract
