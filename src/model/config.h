// The settings of a decoder. GPT-2, Llama and the other families of model folders are settings of
// one model; names are Hugging Face Llama's.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace refract {

class Fields;

struct ModelConfig {
  std::string preset;                   // a name from preset_names(), or empty
  int64_t vocab_size = 0;               // 0: the tokenizer's
  int64_t hidden_size = 256;            // C
  int64_t intermediate_size = 0;        // F; 0: 4 C
  int64_t num_hidden_layers = 4;        // L
  int64_t num_attention_heads = 4;      // H
  int64_t num_key_value_heads = 0;      // K; 0: H
  int64_t head_dim = 0;                 // D; 0: C / H. The attention's width H * D need not be C
  int64_t max_position_embeddings = 0;  // 0: the context of the data
  std::string norm = "layernorm";       // layernorm | rmsnorm
  double norm_eps = 1e-5;
  std::string position = "learned";      // learned | rope
  std::string hidden_act = "gelu_tanh";  // gelu (erf) | gelu_tanh | swiglu
  bool attention_bias = true;            // of q, k, v
  bool attention_output_bias = true;     // of o
  bool mlp_bias = true;
  bool tie_word_embeddings = true;
  double dropout = 0;  // both residual branches, and embeddings unless they have their own
  double embedding_dropout = -1;  // -1: as dropout
  double attention_dropout = 0;   // attention probabilities
  bool scale_attn_by_inverse_layer_idx = false;
  // A query sees itself and the sliding_window - 1 tokens before it; 0: all before it.
  int64_t sliding_window = 0;
  // Of every layer "sliding_attention" or "full_attention"; empty: all have the window.
  std::vector<std::string> layer_types;
  bool qk_norm = false;  // RMSNorm of each head of q and k before rotary positions, as Qwen3 has it
  // Rotary positions turn channels 2 i and 2 i + 1 of a head together (GPT-J), not i and i + D / 2.
  bool rotary_interleaved = false;
  // x + attention(norm x) + mlp(norm x), as GPT-NeoX has it, instead of one after the other.
  bool parallel_residual = false;
  double rope_theta = 10000;
  double partial_rotary_factor = 1;   // part of each head that rotary positions turn
  std::string rope_scaling = "none";  // none | linear | dynamic | yarn | llama3
  double rope_factor = 1;
  double rope_low_freq_factor = 1;
  double rope_high_freq_factor = 4;
  int64_t rope_original_max_position_embeddings = 8192;  // of llama3 and yarn
  double rope_beta_fast = 32, rope_beta_slow = 1;        // of yarn: turns in the original context
  bool rope_truncate = true;                 // of yarn: between whole numbers of channels
  double rope_attention_factor = 0;          // of yarn: of cos and sin; 0: 0.1 ln(rope_factor) + 1
  std::string init_scheme = "normal";        // normal | torchtitan; the setting is init.scheme
  double initializer_range = 0.02;           // std of linear layers and token embeddings
  double position_initializer_range = 0.01;  // std of learned positions
  bool scaled_residual_init = false;  // o_proj and down_proj divided by sqrt(2 L), as GPT-2's paper

  bool gated() const { return hidden_act == "swiglu"; }
  bool rms() const { return norm == "rmsnorm"; }
  double dropout_of_embeddings() const {
    return embedding_dropout < 0 ? dropout : embedding_dropout;
  }
  int64_t attention_width() const { return num_attention_heads * head_dim; }
  int64_t key_value_width() const { return num_key_value_heads * head_dim; }
  // The window of a layer; 0: none, or one that no sequence outgrows.
  int64_t window_of(int64_t layer) const;
  // The longest sequence: max_position_embeddings, or to where rotary scaling stretches it (yarn,
  // dynamic).
  int64_t longest() const;
  // The same of a sequence in a KV cache. With dynamic scaling the angles follow from the whole
  // length, and a key that is kept was turned for a shorter one: max_position_embeddings.
  int64_t longest_cached() const;
  // Channels of a head that rotary positions turn: pairs (i, i + D / 2) with i below half of it.
  int64_t rotary_width() const {
    return static_cast<int64_t>(static_cast<double>(head_dim) * partial_rotary_factor);
  }
};

void describe(Fields& fields, ModelConfig& config);

// Names of the built-in sizes, and their settings. Fails for an unknown name with the nearest one.
std::vector<std::string> preset_names();
ModelConfig preset(const std::string& name);

// Fills what is 0 from the other settings and checks that everything fits together; every complaint
// names the key, its value and what would do.
void resolve(ModelConfig& config, int64_t tokenizer_vocab_size, int64_t context);

}  // namespace refract
