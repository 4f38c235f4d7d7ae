// Tiny decoders of every kind, for tests.
#pragma once
#define AT_PER_OPERATOR_HEADERS  // TensorOperators.h alone, not all functions
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "model/decoder.h"
#include "model/dense.h"

namespace refract::testing {

inline ModelConfig small_gpt2() {
  ModelConfig c;
  c.vocab_size = 13;
  c.hidden_size = 8;
  c.num_hidden_layers = 2;
  c.num_attention_heads = 2;
  c.max_position_embeddings = 12;
  resolve(c, 0, 0);
  return c;
}

inline ModelConfig small_llama() {
  ModelConfig c = small_gpt2();
  c.norm = "rmsnorm";
  c.position = "rope";
  c.hidden_act = "swiglu";
  c.attention_bias = c.attention_output_bias = c.mlp_bias = false;
  c.tie_word_embeddings = false;
  c.num_attention_heads = 4;
  c.num_key_value_heads = 2;
  c.head_dim = 4;
  c.intermediate_size = 12;
  resolve(c, 0, 0);
  return c;
}

// One configuration per setting of the decoder.
inline std::vector<std::pair<std::string, ModelConfig>> every_setting() {
  std::vector<std::pair<std::string, ModelConfig>> all = {{"gpt2", small_gpt2()},
                                                          {"llama", small_llama()}};
  auto add = [&](const char* name, ModelConfig config, auto change) {
    change(config);
    resolve(config, 0, 0);
    all.emplace_back(name, config);
  };
  add("gelu", small_gpt2(), [](ModelConfig& c) { c.hidden_act = "gelu"; });
  add("untied", small_gpt2(), [](ModelConfig& c) { c.tie_word_embeddings = false; });
  add("inverse layer", small_gpt2(),
      [](ModelConfig& c) { c.scale_attn_by_inverse_layer_idx = true; });
  add("narrow attention", small_gpt2(), [](ModelConfig& c) { c.head_dim = 2; });
  add("structured", small_gpt2(),
      [](ModelConfig& c) { c.position = "rope", c.hidden_act = "gelu_tanh"; });
  add("no biases", small_gpt2(),
      [](ModelConfig& c) { c.attention_bias = c.attention_output_bias = c.mlp_bias = false; });
  add("bias of o alone", small_gpt2(), [](ModelConfig& c) { c.attention_bias = false; });
  add("rms gelu", small_gpt2(), [](ModelConfig& c) { c.norm = "rmsnorm"; });
  add("biases", small_llama(),
      [](ModelConfig& c) { c.attention_bias = c.attention_output_bias = c.mlp_bias = true; });
  add("tied mqa", small_llama(),
      [](ModelConfig& c) { c.tie_word_embeddings = true, c.num_key_value_heads = 1; });
  add("linear rope", small_llama(),
      [](ModelConfig& c) { c.rope_scaling = "linear", c.rope_factor = 2; });
  add("llama3 rope", small_llama(), [](ModelConfig& c) {
    c.rope_scaling = "llama3", c.rope_factor = 4, c.rope_original_max_position_embeddings = 16;
  });
  add("yarn rope", small_llama(), [](ModelConfig& c) {
    c.rope_scaling = "yarn", c.rope_factor = 2, c.rope_original_max_position_embeddings = 6;
  });
  add("dynamic rope", small_llama(),
      [](ModelConfig& c) { c.rope_scaling = "dynamic", c.rope_factor = 2; });
  add("sliding window", small_llama(), [](ModelConfig& c) { c.sliding_window = 3; });
  add("one sliding layer, as Qwen2", small_llama(), [](ModelConfig& c) {
    c.attention_bias = true, c.sliding_window = 3;
    c.layer_types = {"full_attention", "sliding_attention"};
  });
  add("interleaved rope", small_llama(), [](ModelConfig& c) { c.rotary_interleaved = true; });
  add("qk norm", small_llama(), [](ModelConfig& c) { c.qk_norm = true; });
  add("qk norm, learned positions", small_gpt2(), [](ModelConfig& c) { c.qk_norm = true; });
  add("dropout", small_gpt2(), [](ModelConfig& c) { c.dropout = 0.3, c.attention_dropout = 0.2; });
  add("dropout of embeddings", small_gpt2(), [](ModelConfig& c) { c.embedding_dropout = 0.3; });
  return all;
}

// Allocated, with weights large enough that every part matters, biases and norms included.
inline std::unique_ptr<Decoder> make_decoder(const ModelConfig& config,
                                             at::ScalarType dtype = at::kFloat,
                                             const LayerFactory& factory = DenseFactory(),
                                             uint64_t seed = 1) {
  auto decoder = std::make_unique<Decoder>(config, factory);
  decoder->allocate(at::kCPU, dtype, dtype == at::kDouble ? at::kDouble : at::kFloat);
  decoder->arena().initialize(seed);
  for (const Parameter& parameter : decoder->arena().parameters()) {
    at::Tensor value = decoder->arena().value(&parameter);
    if (parameter.shape.size() > 1) {
      value.mul_(15);
    } else {  // a fixed pattern around 0 or 1
      for (int64_t i = 0; i < value.numel(); ++i)
        value[i] += 0.1 * static_cast<double>((i * 7 + 3) % 5 - 2);
    }
  }
  decoder->arena().refresh_compute();
  return decoder;
}

// A reproducible pattern of tokens, every one of the vocabulary in it.
inline at::Tensor tokens_for(const ModelConfig& config, int64_t batch, int64_t length) {
  at::Tensor tokens = at::empty({batch, length}, at::kLong);
  int64_t* data = tokens.mutable_data_ptr<int64_t>();
  for (int64_t i = 0; i < batch * length; ++i)
    data[i] = (i * i * 5 + i * 3 + 1) % config.vocab_size;
  return tokens;
}

}  // namespace refract::testing
