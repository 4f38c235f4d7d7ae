#include "formats/hf_config.h"

#include <nlohmann/json.hpp>
#include <set>

#include "core/config.h"
#include "core/error.h"
#include "core/files.h"
#include "core/gguf/gguf_header.h"
#include "core/untrusted.h"
#include "formats/families/gpt_neox.h"
#include "formats/families/hf_keys.h"
#include "formats/gguf/gguf_config.h"
#include "model/layer_plan.h"

namespace refract {
namespace {

using nlohmann::json;

// What LayerPlan::extras may hold in GPT-2 and Llama.
const std::set<std::string> kKnownExtras = {};

void refuse_what_no_family_has(const HfKeys& keys) {
  if (keys.has("quantization_config"))
    keys.complain("quantization_config", "weights that are not quantized");
}

std::string gpt2_activation(const HfKeys& keys) {
  const std::string name = keys.text("activation_function", "gelu_new");
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return "gelu_tanh";
  if (name == "gelu") return "gelu";
  keys.complain("activation_function", "gelu, gelu_new or gelu_pytorch_tanh");
}

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

ModelConfig from_llama(const HfKeys& keys) {
  const std::string act = keys.text("hidden_act", "silu");
  if (act != "silu" && act != "swish") keys.complain("hidden_act", "silu");
  if (keys.number("partial_rotary_factor", 1) != 1) keys.complain("partial_rotary_factor", "1");
  ModelConfig c;
  c.norm = "rmsnorm";
  c.position = "rope";
  c.hidden_act = "swiglu";
  c.vocab_size = keys.count("vocab_size", 32000);
  c.hidden_size = keys.count("hidden_size");
  c.intermediate_size = keys.count("intermediate_size");
  c.num_hidden_layers = keys.count("num_hidden_layers");
  c.num_attention_heads = keys.count("num_attention_heads");
  c.num_key_value_heads = keys.count("num_key_value_heads", c.num_attention_heads);
  c.head_dim = keys.has("head_dim") ? keys.count("head_dim") : 0;
  c.max_position_embeddings = keys.count("max_position_embeddings", 2048);
  c.norm_eps = keys.number("rms_norm_eps", 1e-6);
  c.attention_bias = c.attention_output_bias = keys.flag("attention_bias", false);
  c.mlp_bias = keys.flag("mlp_bias", false);
  c.tie_word_embeddings = keys.flag("tie_word_embeddings", false);
  c.attention_dropout = keys.number("attention_dropout", 0);
  c.initializer_range = keys.number("initializer_range", 0.02);
  read_rope(keys, c, /*partial=*/false);
  return c;
}

ModelConfig from_refract(const json& tree, const std::string& where) {
  ModelConfig c;
  Fields fields;
  describe(fields, c);
  for (const auto& [key, value] : tree.items()) {
    const bool about_the_file = key == "model_type" || key == "architectures" || key == "dtype" ||
                                key == "torch_dtype" || key == "bos_token_id" ||
                                key == "eos_token_id" || key == "pad_token_id";
    if (!about_the_file) fields.set("model." + key, value, where);
  }
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

json to_llama(const ModelConfig& c) {
  return {{"architectures", {"LlamaForCausalLM"}},
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
          {"attention_bias", c.attention_bias},
          {"attention_dropout", c.attention_dropout},
          {"mlp_bias", c.mlp_bias},
          {"rope_parameters", rope_parameters_json(c)},
          {"rope_theta", c.rope_theta},
          {"rope_scaling", rope_scaling_json(c)}};
}

// What stands against GPT-2: everything it has no setting for.
std::vector<std::string> against_gpt2(const ModelConfig& c) {
  std::vector<std::string> reasons;
  auto want = [&](bool good, std::string reason) {
    if (!good) reasons.push_back(std::move(reason));
  };
  want(!c.rms(), "norm = rmsnorm");
  want(c.position == "learned", "position = " + c.position);
  want(!c.gated(), "hidden_act = swiglu");
  want(c.attention_bias && c.attention_output_bias && c.mlp_bias, "layers without biases");
  want(c.num_key_value_heads == c.num_attention_heads, "grouped key/value heads");
  want(c.attention_width() == c.hidden_size, "an attention width other than hidden_size");
  return reasons;
}

std::vector<std::string> against_llama(const ModelConfig& c) {
  std::vector<std::string> reasons;
  auto want = [&](bool good, std::string reason) {
    if (!good) reasons.push_back(std::move(reason));
  };
  want(c.rms(), "norm = layernorm");
  want(c.position == "rope", "position = " + c.position);
  want(c.partial_rotary_factor == 1, "partial_rotary_factor");
  want(c.gated(), "hidden_act = " + c.hidden_act);
  want(c.attention_bias == c.attention_output_bias,
       "biases of q, k and v but not of o, or the reverse");
  want(!c.scale_attn_by_inverse_layer_idx, "scale_attn_by_inverse_layer_idx");
  want(c.hidden_size % c.num_attention_heads == 0,
       "a hidden_size that num_attention_heads does not divide");
  return reasons;
}

// A number where there is one, as most programs expect.
json eos_json(const TokenIds& ids) {
  if (ids.eos.empty()) return nullptr;
  return ids.eos.size() == 1 ? json(ids.eos.front()) : json(ids.eos);
}

}  // namespace

HfFamily hf_family(const ModelConfig& config) {
  std::vector<std::string> gpt2 = against_gpt2(config), llama = against_llama(config);
  const std::vector<std::string> gpt_neox = against_gpt_neox(config);
  const std::vector<std::string> extras = unknown_extras(model_plan(config), kKnownExtras);
  gpt2.insert(gpt2.end(), extras.begin(), extras.end());
  llama.insert(llama.end(), extras.begin(), extras.end());
  if (gpt2.empty()) return {"gpt2", ""};
  if (llama.empty()) return {"llama", ""};
  if (gpt_neox.empty()) return {"gpt_neox", ""};
  return {"",
          fmt::format("Hugging Face's GPT-2 has no {}; its Llama has no {}; its GPT-NeoX has no {}",
                      fmt::join(gpt2, ", no "), fmt::join(llama, ", no "),
                      fmt::join(gpt_neox, ", no "))};
}

std::string model_type_of(const json& tree, const std::string& where) {
  const std::string type = HfKeys(tree, where).text("model_type", "");
  if (type.empty())
    fail("'{}' has no model_type; refract reads gpt2, llama, gpt_neox and its own, refract", where);
  if (type != "gpt2" && type != "llama" && type != "gpt_neox" && type != "refract") {
    fail(
        "'{}': model_type = \"{}\" is not supported; refract reads gpt2, llama, gpt_neox and its "
        "own, refract",
        where, shown(type));
  }
  return type;
}

ModelConfig config_from_json(const json& tree, const std::string& where) {
  const std::string type = model_type_of(tree, where);
  const HfKeys keys(tree, where);
  if (type != "refract") refuse_what_no_family_has(keys);
  ModelConfig config = type == "gpt2"       ? from_gpt2(keys)
                       : type == "llama"    ? from_llama(keys)
                       : type == "gpt_neox" ? from_gpt_neox(keys)
                                            : from_refract(tree, where);
  try {
    resolve(config, 0, 0);
  } catch (const Error& e) {
    fail("'{}': {}", where, e.what());
  }
  return config;
}

json config_to_json(const ModelConfig& config, const std::string& format, const std::string& dtype,
                    const TokenIds& ids) {
  json tree;
  if (format == "refract") {
    ModelConfig copy = config;
    Fields fields;
    describe(fields, copy);
    tree = fields.to_json()["model"];
    tree["architectures"] = {"RefractDecoder"};
  } else {
    tree = format == "gpt2"    ? to_gpt2(config)
           : format == "llama" ? to_llama(config)
                               : to_gpt_neox(config);
    tree["tie_word_embeddings"] = config.tie_word_embeddings;
    tree["initializer_range"] = config.initializer_range;
    tree["use_cache"] = true;
  }
  tree["model_type"] = format;
  tree["dtype"] = tree["torch_dtype"] = dtype;
  // Written even when unknown: left out, the families would assume the ids of their first
  // tokenizer.
  tree["bos_token_id"] = ids.bos ? json(*ids.bos) : json();
  tree["eos_token_id"] = eos_json(ids);
  return tree;
}

json generation_config_json(const TokenIds& ids) {
  json tree = {{"_from_model_config", true}, {"use_cache", true}};
  if (ids.bos) tree["bos_token_id"] = *ids.bos;
  if (!ids.eos.empty()) tree["eos_token_id"] = eos_json(ids);
  return tree;
}

json read_config_json(const std::filesystem::path& folder) {
  if (is_gguf_file(folder)) return read_gguf_config(folder);
  const std::filesystem::path path = folder / "config.json";
  if (!std::filesystem::exists(path)) {
    fail(
        "'{}' has no config.json; a model folder holds config.json and model.safetensors "
        "(save_pretrained and refract "
        "write such folders)",
        folder.string());
  }
  json tree =
      parse_json(read_file(path, "the model's configuration"), fmt::format("'{}'", path.string()));
  if (!tree.is_object()) fail("'{}' is not JSON with one object", path.string());
  return tree;
}

ModelConfig read_model_config(const std::filesystem::path& folder) {
  return config_from_json(read_config_json(folder), config_place(folder));
}

}  // namespace refract
