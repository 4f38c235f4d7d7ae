#include "analysis/flops.h"

#include <algorithm>
#include <numeric>

#include "core/error.h"
#include "model/config.h"
#include "model/layer_plan.h"

namespace refract {
namespace {

constexpr double kFlopsPerMultiplication = 2;
constexpr double kTrainingFactor = 3;  // forward 1, gradients of inputs 1, of weights 1

// A dense layer of these dimensions. Its matrices are those that a decoder would have.
LayerPlan dense_layer(const DecoderShape& s) {
  ModelConfig config;
  config.hidden_size = s.hidden_size;
  config.intermediate_size = s.intermediate_size;
  config.num_attention_heads = s.num_heads;
  config.num_key_value_heads = s.num_kv_heads > 0 ? s.num_kv_heads : s.num_heads;
  config.head_dim = s.head_dim > 0 ? s.head_dim : s.hidden_size / s.num_heads;
  config.hidden_act = s.gated ? "swiglu" : "gelu";
  return layer_plan(config, 0);
}

void check(const DecoderShape& s) {
  const auto require = [](int64_t value, const char* name) {
    if (value <= 0) fail("can't count operations: the decoder's {} is {}", name, value);
  };
  require(s.hidden_size, "hidden_size");
  require(s.num_layers, "num_layers");
  require(s.num_heads, "num_heads");
  require(s.intermediate_size, "intermediate_size");
  require(s.vocab_size, "vocab_size");
  require(s.context, "context");
  const auto require_all = [&](const std::vector<double>& counts, const char* name) {
    const auto given = static_cast<int64_t>(counts.size());
    if (given > 0 && given != s.num_layers) {
      fail("can't count operations: {} {} counts for {} layers", given, name, s.num_layers);
    }
  };
  require_all(s.ffn_multiplications, "feed-forward");
  require_all(s.attention_multiplications, "attention");
}

// Of all layers.
double sum_of_layers(const std::vector<double>& counts, double dense, const DecoderShape& s) {
  if (counts.empty()) return dense * static_cast<double>(s.num_layers);
  return std::accumulate(counts.begin(), counts.end(), 0.0);
}

double ffn_multiplications(const DecoderShape& s) {
  return sum_of_layers(s.ffn_multiplications, dense_ffn_multiplications(s), s);
}

double attention_multiplications(const DecoderShape& s) {
  const double dense = attention_multiplications_of(dense_layer(s));
  return sum_of_layers(s.attention_multiplications, dense, s);
}

double head_multiplications(const DecoderShape& s) {
  return static_cast<double>(s.hidden_size * s.vocab_size);
}

}  // namespace

double mean_keys(int64_t context, int64_t window) {
  const auto all = static_cast<double>(context), seen = static_cast<double>(window);
  if (window <= 0 || window >= context) return (all + 1) / 2;
  return (seen * (seen + 1) / 2 + (all - seen) * seen) / all;
}

double ffn_multiplications_of(const LayerPlan& plan) {
  return static_cast<double>(dense_multiplications(plan.up) + dense_multiplications(plan.down));
}

double attention_multiplications_of(const LayerPlan& plan) {
  return static_cast<double>(dense_multiplications(plan.qkv) + dense_multiplications(plan.output));
}

double dense_ffn_multiplications(const DecoderShape& shape) {
  return ffn_multiplications_of(dense_layer(shape));
}

Flops Flops::operator+(const Flops& other) const {
  return {attention_projections + other.attention_projections,
          attention_products + other.attention_products, ffn + other.ffn, head + other.head};
}

Flops Flops::operator*(double factor) const {
  return {attention_projections * factor, attention_products * factor, ffn * factor, head * factor};
}

Flops forward_flops_per_token(const DecoderShape& shape, AttentionCount attention) {
  check(shape);
  const auto layers = static_cast<double>(shape.num_layers);
  const auto windowed = static_cast<double>(shape.windowed_layers);
  const auto keys = [&](int64_t window) {
    if (attention == AttentionCount::kCausal) return mean_keys(shape.context, window);
    return static_cast<double>(window > 0 ? std::min(window, shape.context) : shape.context);
  };
  const AttentionSpec core = dense_layer(shape).attention;
  const auto width = static_cast<double>(core.num_heads * core.head_dim);
  Flops multiplications;
  multiplications.attention_projections = attention_multiplications(shape);
  multiplications.attention_products =
      ((layers - windowed) * keys(0) + windowed * keys(shape.window)) * 2 * width;
  multiplications.ffn = ffn_multiplications(shape);
  multiplications.head = head_multiplications(shape);
  return multiplications * kFlopsPerMultiplication;
}

Flops training_flops_per_token(const DecoderShape& shape, AttentionCount attention) {
  const Flops forward = forward_flops_per_token(shape, attention);
  if (shape.nothing_trained) return forward;
  Flops left_out;  // multiplications
  left_out.attention_projections =
      shape.attention_frozen_multiplications + shape.attention_forward_only_multiplications;
  left_out.ffn = shape.ffn_frozen_multiplications + shape.ffn_forward_only_multiplications;
  left_out.attention_products =
      (kTrainingFactor - 1) / kFlopsPerMultiplication * forward.attention_products *
      static_cast<double>(shape.forward_only_layers) / static_cast<double>(shape.num_layers);
  if (shape.frozen_head) left_out.head = head_multiplications(shape);
  return forward * kTrainingFactor + left_out * -kFlopsPerMultiplication;
}

Flops guide_flops_per_token(const DecoderShape& shape) {
  Flops multiplications;
  multiplications.attention_projections = shape.attention_guide_multiplications;
  multiplications.ffn = shape.ffn_guide_multiplications;
  return multiplications * (kFlopsPerMultiplication * kTrainingFactor);
}

Flops training_flops(const DecoderShape& shape, const TrainingRun& run) {
  return training_flops_per_token(shape) * (run.steps * run.tokens_per_step) +
         guide_flops_per_token(shape) * (run.guided_steps * run.tokens_per_step);
}

MatrixParameters matrix_parameters(const DecoderShape& shape) {
  check(shape);
  MatrixParameters count;
  count.token_embedding = shape.vocab_size * shape.hidden_size;
  // Every factor of a layer multiplies each of its elements once per token.
  count.attention = static_cast<int64_t>(attention_multiplications(shape));
  count.ffn = static_cast<int64_t>(ffn_multiplications(shape));
  count.head = shape.tied ? 0 : count.token_embedding;
  return count;
}

DecoderShape shape_of(const ModelConfig& config, int64_t context) {
  DecoderShape shape;
  shape.hidden_size = config.hidden_size;
  shape.num_layers = config.num_hidden_layers;
  shape.num_heads = config.num_attention_heads;
  shape.num_kv_heads = config.num_key_value_heads;
  shape.head_dim = config.head_dim;
  shape.intermediate_size = config.intermediate_size;
  shape.vocab_size = config.vocab_size;
  shape.context = context > 0 ? context : config.max_position_embeddings;
  shape.window = config.sliding_window;
  for (int64_t i = 0; i < config.num_hidden_layers; ++i)
    if (config.window_of(i) > 0) ++shape.windowed_layers;
  shape.gated = config.gated();
  shape.tied = config.tie_word_embeddings;
  return shape;
}

}  // namespace refract
