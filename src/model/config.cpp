#include "model/config.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "core/config.h"
#include "core/error.h"
#include "core/untrusted.h"

namespace refract {
namespace {

struct Size {
  const char* name;
  int64_t hidden, context, layers, heads, kv_heads, intermediate, vocab;
};

// Of the connectivity study, of OpenAI's GPT-2, of the structured layers' paper, and of CLM.
constexpr Size kStudySizes[] = {
    {"tinygpt", 64, 8, 4, 4, 0, 0, 0},
    {"toygpt", 32, 8, 4, 4, 0, 0, 50257},
    {"compactgpt", 192, 64, 6, 6, 0, 0, 50257},
    {"mingpt", 384, 256, 6, 6, 0, 0, 50257},
};
constexpr Size kGpt2Sizes[] = {
    {"gpt2", 768, 1024, 12, 12, 0, 0, 50257},
    {"gpt2-medium", 1024, 1024, 24, 16, 0, 0, 50257},
    {"gpt2-large", 1280, 1024, 36, 20, 0, 0, 50257},
    {"gpt2-xl", 1600, 1024, 48, 25, 0, 0, 50257},
};
constexpr Size kStructuredSizes[] = {
    {"structured-s", 768, 1024, 12, 12, 0, 3072, 32000},
    {"structured-m", 1024, 1024, 24, 16, 0, 4096, 32000},
    {"structured-l", 1536, 1024, 24, 12, 0, 6144, 32000},
    {"structured-xl", 2048, 1024, 24, 16, 0, 8192, 32000},
};
constexpr Size kClmSizes[] = {
    {"clm-60m", 384, 2048, 22, 6, 2, 1408, 49152},
    {"clm-200m", 768, 2048, 24, 12, 4, 2688, 49152},
    {"clm-400m", 960, 2048, 30, 15, 5, 3328, 49152},
    {"clm-600m", 1152, 2048, 32, 18, 6, 4096, 49152},
    {"clm-1.1b", 1536, 2048, 32, 24, 8, 5376, 49152},
};

ModelConfig sized(const Size& size) {
  ModelConfig config;
  config.preset = size.name;
  config.hidden_size = size.hidden;
  config.max_position_embeddings = size.context;
  config.num_hidden_layers = size.layers;
  config.num_attention_heads = size.heads;
  config.num_key_value_heads = size.kv_heads;
  config.intermediate_size = size.intermediate;
  config.vocab_size = size.vocab;
  return config;
}

ModelConfig studied(const Size& size) {
  ModelConfig config = sized(size);
  config.hidden_act = "gelu";
  return config;
}

ModelConfig structured(const Size& size) {
  ModelConfig config = sized(size);
  config.position = "rope";
  config.hidden_act = "gelu_tanh";
  return config;
}

ModelConfig llama(const Size& size) {
  ModelConfig config = sized(size);
  config.norm = "rmsnorm";
  config.position = "rope";
  config.hidden_act = "swiglu";
  config.attention_bias = config.attention_output_bias = config.mlp_bias = false;
  config.tie_word_embeddings = false;
  return config;
}

// Of any setting of the model: sums and products of two of them fit 64 bits; what a parameter holds
// the arena checks.
constexpr int64_t kLargestSize = std::numeric_limits<int32_t>::max();

constexpr const char *kSliding = "sliding_attention", *kFull = "full_attention";

void require(bool good, const std::string& complaint) {
  if (!good) fail_usage("{}", complaint);
}

// One spelling for one model: no list where all layers are alike, no window where none has it.
void resolve_windows(ModelConfig& c) {
  if (c.layer_types.empty()) return;
  const auto listed = static_cast<int64_t>(c.layer_types.size());
  require(listed == c.num_hidden_layers,
          fmt::format("model.layer_types names {} layers, and model.num_hidden_layers = {}", listed,
                      c.num_hidden_layers));
  int64_t sliding = 0;
  for (const std::string& type : c.layer_types) {
    require(type == kSliding || type == kFull,
            fmt::format("model.layer_types holds \"{}\"; a layer has \"{}\" or \"{}\"", shown(type),
                        kSliding, kFull));
    if (type == kSliding) ++sliding;
  }
  require(sliding == 0 || c.sliding_window > 0,
          fmt::format("model.layer_types says \"{}\", and model.sliding_window = 0; set it to the "
                      "number of tokens that a query sees",
                      kSliding));
  if (sliding == 0) c.sliding_window = 0;
  if (sliding == 0 || sliding == listed) c.layer_types.clear();
}

void check_rotary_scaling(const ModelConfig& c) {
  require(c.rope_scaling != "llama3" || c.rope_high_freq_factor > c.rope_low_freq_factor,
          "model.rope_high_freq_factor must be larger than model.rope_low_freq_factor");
  require(
      c.rope_scaling != "yarn" || c.rope_theta > 1,
      fmt::format("model.rope_theta = {} must be larger than 1 for yarn scaling", c.rope_theta));
  require(c.rope_scaling != "dynamic" || c.position != "rope" || c.rotary_width() > 2,
          "dynamic rotary scaling takes 4 rotated channels or more");
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Size& size : kStudySizes) names.emplace_back(size.name);
  for (const Size& size : kGpt2Sizes) names.emplace_back(size.name);
  for (const Size& size : kStructuredSizes) names.emplace_back(size.name);
  for (const Size& size : kClmSizes) names.emplace_back(size.name);
  return names;
}

ModelConfig preset(const std::string& name) {
  for (const Size& size : kStudySizes) {
    if (name == size.name) return studied(size);
  }
  for (const Size& size : kGpt2Sizes) {
    if (name == size.name) return sized(size);
  }
  for (const Size& size : kStructuredSizes) {
    if (name == size.name) return structured(size);
  }
  for (const Size& size : kClmSizes) {
    if (name == size.name) return llama(size);
  }
  fail_usage("model.preset = \"{}\" is not known; did you mean \"{}\"? The presets are: {}", name,
             nearest_name(name, preset_names()), fmt::join(preset_names(), ", "));
}

void describe(Fields& fields, ModelConfig& c) {
  using enum Decides;
  const Limits count{.min = 1}, or_zero{.min = 0}, positive{.min = 0, .open_min = true};
  const Limits probability{.min = 0, .max = 0.999};
  // Models of two presets may compute the same: the keys below hold the sizes. Runs of two presets
  // count as different runs.
  fields.add({"model.preset", kOutcome}, c.preset, "a named size; the keys below override it");
  fields.add({"model.vocab_size", kFunction}, c.vocab_size,
             "size of the vocabulary; 0: the tokenizer's", or_zero);
  fields.add({"model.hidden_size", kFunction}, c.hidden_size, "width of the residual stream",
             count);
  fields.add({"model.intermediate_size", kFunction}, c.intermediate_size,
             "width inside the feed-forward; 0: 4 x hidden_size", or_zero);
  fields.add({"model.num_hidden_layers", kFunction}, c.num_hidden_layers, "decoder layers", count);
  fields.add({"model.num_attention_heads", kFunction}, c.num_attention_heads, "query heads", count);
  fields.add({"model.num_key_value_heads", kFunction}, c.num_key_value_heads,
             "key/value heads; 0: as many as query heads", or_zero);
  fields.add({"model.head_dim", kFunction}, c.head_dim,
             "width of a head; 0: hidden_size / num_attention_heads", or_zero);
  fields.add({"model.max_position_embeddings", kFunction}, c.max_position_embeddings,
             "longest sequence; 0: data.context", or_zero);
  fields.add({"model.norm", kFunction}, c.norm, "normalization before each block",
             {"layernorm", "rmsnorm"});
  fields.add({"model.norm_eps", kFunction}, c.norm_eps, "added to the variance", positive);
  fields.add({"model.position", kFunction}, c.position, "position encoding", {"learned", "rope"});
  fields.add({"model.hidden_act", kFunction}, c.hidden_act, "feed-forward activation",
             {"gelu", "gelu_tanh", "swiglu"});
  fields.add({"model.attention_bias", kFunction}, c.attention_bias, "biases of q, k and v");
  fields.add({"model.attention_output_bias", kFunction}, c.attention_output_bias,
             "bias of the attention's output layer");
  fields.add({"model.mlp_bias", kFunction}, c.mlp_bias, "biases of the feed-forward");
  fields.add({"model.tie_word_embeddings", kFunction}, c.tie_word_embeddings,
             "lm_head and the token embedding share their weight");
  fields.add(
      {"model.dropout", kOutcome}, c.dropout,
      "dropout on residual branches, and on embeddings unless model.embedding_dropout is set",
      probability);
  fields.add({"model.embedding_dropout", kOutcome}, c.embedding_dropout,
             "dropout on embeddings; -1: model.dropout", {.min = -1, .max = 0.999});
  fields.add({"model.attention_dropout", kOutcome}, c.attention_dropout,
             "dropout on attention probabilities", probability);
  fields.add({"model.scale_attn_by_inverse_layer_idx", kFunction},
             c.scale_attn_by_inverse_layer_idx, "divide layer i's attention scores by i + 1");
  fields.add({"model.sliding_window", kFunction}, c.sliding_window,
             "tokens that a query sees, itself the last of them; 0: all before it", or_zero);
  fields.add({"model.layer_types", kFunction}, c.layer_types,
             "sliding_attention or full_attention for each layer; []: all have the sliding window");
  fields.add({"model.qk_norm", kFunction}, c.qk_norm,
             "RMSNorm of each head of q and k, before rotary positions");
  fields.add(
      {"model.rotary_interleaved", kFunction}, c.rotary_interleaved,
      "rotary positions turn neighbouring channels of a head together, not those half a head "
      "apart");
  fields.add({"model.parallel_residual", kFunction}, c.parallel_residual,
             "attention and feed-forward both read the layer's input");
  fields.add({"model.rope_theta", kFunction}, c.rope_theta, "base of the rotary frequencies",
             positive);
  fields.add({"model.partial_rotary_factor", kFunction}, c.partial_rotary_factor,
             "part of each head that rotary positions turn",
             {.min = 0, .max = 1, .open_min = true});
  fields.add({"model.rope_scaling", kFunction}, c.rope_scaling, "scaling of rotary positions",
             {"none", "linear", "dynamic", "yarn", "llama3"});
  fields.add({"model.rope_factor", kFunction}, c.rope_factor, "factor of the scaling", {.min = 1});
  fields.add({"model.rope_low_freq_factor", kFunction}, c.rope_low_freq_factor, "llama3 scaling",
             positive);
  fields.add({"model.rope_high_freq_factor", kFunction}, c.rope_high_freq_factor, "llama3 scaling",
             positive);
  fields.add({"model.rope_original_max_position_embeddings", kFunction},
             c.rope_original_max_position_embeddings,
             "llama3 and yarn scaling: the context it was pretrained with", count);
  fields.add({"model.rope_beta_fast", kFunction}, c.rope_beta_fast,
             "yarn scaling: what turns more often in that context stays as it is", positive);
  fields.add({"model.rope_beta_slow", kFunction}, c.rope_beta_slow,
             "yarn scaling: what turns less often in that context is stretched by the whole factor",
             positive);
  fields.add({"model.rope_truncate", kFunction}, c.rope_truncate,
             "yarn scaling: begin and end at whole channels");
  fields.add({"model.rope_attention_factor", kFunction}, c.rope_attention_factor,
             "yarn scaling: factor of cosines and sines; 0: 0.1 ln(rope_factor) + 1", or_zero);
  fields.add({"init.scheme", kOutcome}, c.init_scheme,
             "how random starting weights are drawn: normal, or as torchtitan draws a Llama's",
             {"normal", "torchtitan"});
  fields.add({"model.initializer_range", kOutcome}, c.initializer_range,
             "standard deviation of the initial linear layers and embeddings", positive);
  fields.add({"model.position_initializer_range", kOutcome}, c.position_initializer_range,
             "standard deviation of the initial learned positions", positive);
  fields.add({"model.scaled_residual_init", kOutcome}, c.scaled_residual_init,
             "divide the initial o_proj and down_proj by sqrt(2 L)");
}

void resolve(ModelConfig& c, int64_t tokenizer_vocab_size, int64_t context) {
  if (c.vocab_size == 0) c.vocab_size = tokenizer_vocab_size;
  if (c.intermediate_size == 0)
    c.intermediate_size = 4 * std::min<int64_t>(c.hidden_size, kLargestSize);
  if (c.num_key_value_heads == 0) c.num_key_value_heads = c.num_attention_heads;
  if (c.max_position_embeddings == 0) c.max_position_embeddings = context;
  const std::pair<const char*, int64_t> sizes[] = {
      {"vocab_size", c.vocab_size},
      {"hidden_size", c.hidden_size},
      {"intermediate_size", c.intermediate_size},
      {"num_hidden_layers", c.num_hidden_layers},
      {"num_attention_heads", c.num_attention_heads},
      {"num_key_value_heads", c.num_key_value_heads},
      {"head_dim", c.head_dim},
      {"max_position_embeddings", c.max_position_embeddings}};
  for (const auto& [name, size] : sizes) {
    require(size <= kLargestSize,
            fmt::format("model.{} = {} is too large: {} is the most", name, size, kLargestSize));
  }
  if (c.head_dim == 0) {
    require(c.hidden_size % c.num_attention_heads == 0,
            fmt::format("model.hidden_size = {} can't be divided by model.num_attention_heads = "
                        "{}; set model.head_dim, "
                        "or choose sizes that divide",
                        c.hidden_size, c.num_attention_heads));
    c.head_dim = c.hidden_size / c.num_attention_heads;
  }
  require(c.vocab_size > 0,
          "model.vocab_size is not set and there is no tokenizer to take it from");
  require(c.vocab_size >= tokenizer_vocab_size,
          fmt::format("model.vocab_size = {} is smaller than the tokenizer's {}; set "
                      "model.vocab_size=0 to take the tokenizer's",
                      c.vocab_size, tokenizer_vocab_size));
  require(c.num_attention_heads % c.num_key_value_heads == 0,
          fmt::format(
              "model.num_attention_heads = {} is not a multiple of model.num_key_value_heads = {}",
              c.num_attention_heads, c.num_key_value_heads));
  require(c.position != "rope" || c.head_dim % 2 == 0,
          fmt::format("model.head_dim = {} is odd; rotary positions need an even one", c.head_dim));
  require(!c.rotary_interleaved || c.position == "rope",
          fmt::format("model.rotary_interleaved is about rotary positions, and model.position = "
                      "\"{}\"; set model.position = \"rope\"",
                      c.position));
  require(c.embedding_dropout >= 0 || c.embedding_dropout == -1,
          fmt::format("model.embedding_dropout = {} is neither a probability nor -1, which stands "
                      "for model.dropout",
                      c.embedding_dropout));
  require(c.position != "rope" || (c.rotary_width() >= 2 && c.rotary_width() % 2 == 0),
          fmt::format("model.partial_rotary_factor = {} of model.head_dim = {} gives {} rotated "
                      "channels; it takes an even number of them, from 2 on",
                      c.partial_rotary_factor, c.head_dim, c.rotary_width()));
  require(!c.rotary_interleaved || c.rotary_width() == c.head_dim,
          "model.rotary_interleaved turns whole heads; leave model.partial_rotary_factor at 1");
  check_rotary_scaling(c);
  resolve_windows(c);
  require(context <= c.longest(),
          c.longest() == c.max_position_embeddings
              ? fmt::format("data.context = {} is longer than model.max_position_embeddings = {}",
                            context, c.max_position_embeddings)
              : fmt::format("data.context = {} is longer than the {} tokens to which {} scaling "
                            "stretches the model's positions",
                            context, c.longest(), c.rope_scaling));
}

int64_t ModelConfig::window_of(int64_t layer) const {
  const bool full = !layer_types.empty() && layer_types.at(static_cast<size_t>(layer)) != kSliding;
  return full || sliding_window >= longest() ? 0 : sliding_window;
}

int64_t ModelConfig::longest() const {
  if (position != "rope") return max_position_embeddings;
  double stretched = 0;
  if (rope_scaling == "yarn")
    stretched = rope_factor * static_cast<double>(rope_original_max_position_embeddings);
  if (rope_scaling == "dynamic")
    stretched = rope_factor * static_cast<double>(max_position_embeddings);
  stretched = std::min(std::floor(stretched), static_cast<double>(kLargestSize));
  return std::max(max_position_embeddings, static_cast<int64_t>(stretched));
}

int64_t ModelConfig::longest_cached() const {
  return rope_scaling == "dynamic" ? max_position_embeddings : longest();
}

}  // namespace refract
