#include "model/decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/random.h"
#include "model/dense.h"
#include "model/rope.h"
#include "ops/dense/activation/dropout.h"
#include "ops/dense/attention/rope.h"
#include "ops/dense/embedding/embedding.h"
#include "ops/dense/loss/cross_entropy.h"
#include "ops/dense/norm/norm.h"
#include "ops/many/batched_cross_entropy.h"
#include "ops/many/split.h"

namespace refract {
namespace {

// Rows of embedding and head in the arena: tensor cores want a multiple of 64; below this it only
// costs.
constexpr int64_t kPadVocabularyFrom = 1024;

Norm declare_norm(ParameterArena& arena, const ModelConfig& config, const std::string& name) {
  Norm norm;
  norm.weight = arena.declare({name + ".weight", {config.hidden_size}, Init::ones()});
  if (!config.rms())
    norm.bias = arena.declare({name + ".bias", {config.hidden_size}, Init::zeros()});
  return norm;
}

// A smaller head is bound by memory, and splitting its operands costs more than it saves.
constexpr int64_t kSplitVocabularyFrom = 8192;

// Whether nothing but the loss of fp32 states is wanted, and tensor cores can give it.
bool takes_split_head(const at::Tensor& states, int64_t vocabulary) {
  return !at::GradMode::is_enabled() && states.is_cuda() && states.scalar_type() == at::kFloat &&
         vocabulary >= kSplitVocabularyFrom &&
         has_fused_split_head(states.size(-1), states.device());
}

Decoder::Loss split_loss(const at::Tensor& states, const at::Tensor& head,
                         const at::Tensor& targets, int64_t vocabulary) {
  const BatchedCrossEntropy loss = batched_linear_cross_entropy(
      split_bfloat16(states.reshape({1, -1, states.size(-1)})),
      split_weight_bfloat16(head.unsqueeze(0)), targets.reshape({-1}), vocabulary, /*split=*/true);
  return {loss.loss_sum.squeeze(0), loss.num_correct.squeeze(0)};
}

Activation activation_of(const ModelConfig& config) {
  if (config.gated()) return Activation::kSwiglu;
  return config.hidden_act == "gelu" ? Activation::kGelu : Activation::kGeluTanh;
}

}  // namespace

class DecoderLayer {
 public:
  DecoderLayer(const ModelConfig& config, const LayerFactory& factory, Build build, int64_t index);

  at::Tensor attention(const ForwardContext& context, const at::Tensor& x,
                       const Positions& positions);
  at::Tensor mlp(const ForwardContext& context, const at::Tensor& x);
  bool follows_lengths() const { return core_->follows_lengths(); }

  Norm input_norm, post_attention_norm;
  const std::string name;

 private:
  AttentionSpec spec_;
  std::unique_ptr<Projections> qkv_, output_, up_, down_;
  std::unique_ptr<AttentionCore> core_;
};

DecoderLayer::DecoderLayer(const ModelConfig& c, const LayerFactory& factory, Build build,
                           int64_t index)
    : name(fmt::format("model.layers.{}", index)) {
  const std::string attn = name + ".self_attn", mlp = name + ".mlp";
  const int64_t C = c.hidden_size, F = c.intermediate_size;
  const double std = c.initializer_range;
  const double residual_std = c.scaled_residual_init
                                  ? std / std::sqrt(2.0 * static_cast<double>(c.num_hidden_layers))
                                  : std;
  input_norm = declare_norm(build.arena, c, name + ".input_layernorm");
  qkv_ = factory.projections(
      build, {{{attn + ".q_proj", C, c.attention_width(), c.attention_bias, std, index},
               {attn + ".k_proj", C, c.key_value_width(), c.attention_bias, std, index},
               {attn + ".v_proj", C, c.key_value_width(), c.attention_bias, std, index}}});
  double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  if (c.scale_attn_by_inverse_layer_idx) scale /= static_cast<double>(index + 1);
  spec_ = {attn,       index, c.num_attention_heads, c.num_key_value_heads,
           c.head_dim, scale, c.attention_dropout};
  core_ = factory.attention(build, spec_);
  output_ = factory.projections(
      build,
      {{{attn + ".o_proj", c.attention_width(), C, c.attention_output_bias, residual_std, index}}});
  post_attention_norm = declare_norm(build.arena, c, name + ".post_attention_layernorm");
  ProjectionSpec up{{}, activation_of(c)};
  if (c.gated()) up.members.push_back({mlp + ".gate_proj", C, F, c.mlp_bias, std, index});
  up.members.push_back({mlp + ".up_proj", C, F, c.mlp_bias, std, index});
  up_ = factory.projections(build, up);
  down_ =
      factory.projections(build, {{{mlp + ".down_proj", F, C, c.mlp_bias, residual_std, index}}});
}

at::Tensor DecoderLayer::attention(const ForwardContext& context, const at::Tensor& x,
                                   const Positions& place) {
  at::Tensor qkv = qkv_->forward(context, x);
  if (place.cos.defined()) {
    const at::Tensor rows = place.per_sequence ? qkv.view({x.size(0), -1}) : qkv;
    qkv = rope(rows, place.cos, place.sin, place.offset, spec_.num_heads + spec_.num_kv_heads,
               spec_.head_dim)
              .view(qkv.sizes());
  }
  return output_->forward(context, core_->forward_joint(context, spec_, qkv));
}

at::Tensor DecoderLayer::mlp(const ForwardContext& context, const at::Tensor& x) {
  return down_->forward(context, up_->forward(context, x));
}

Decoder::Decoder(const ModelConfig& config, const LayerFactory& factory) : config_(config) {
  const Build build{arena_, buffers_, transformed_};
  const int64_t padding = config.vocab_size >= kPadVocabularyFrom ? 64 : 1;
  const std::vector<int64_t> vocabulary = {config.vocab_size, config.hidden_size};
  embed_tokens_ = arena_.declare(
      {"model.embed_tokens.weight", vocabulary, Init::normal(config.initializer_range)}, padding);
  if (config.position == "learned") {
    embed_positions_ = arena_.declare({"model.embed_positions.weight",
                                       {config.max_position_embeddings, config.hidden_size},
                                       Init::normal(config.position_initializer_range)});
  }
  for (int64_t i = 0; i < config.num_hidden_layers; ++i) {
    layers_.push_back(std::make_unique<DecoderLayer>(config_, factory, build, i));
  }
  final_norm_ = declare_norm(arena_, config_, "model.norm");
  if (!config.tie_word_embeddings) {
    lm_head_ = arena_.declare(
        {"lm_head.weight", vocabulary, Init::normal(config.initializer_range)}, padding);
  }
  arena_.freeze_all_but_adapters();
}

Decoder::~Decoder() = default;

void Decoder::allocate(at::Device device, at::ScalarType compute_dtype,
                       at::ScalarType master_dtype) {
  arena_.allocate(device, master_dtype, compute_dtype);
  buffers_.to(device);
  embed_leaf_ = arena_.leaf(embed_tokens_);
  head_leaf_ = lm_head_ ? arena_.leaf(lm_head_) : embed_leaf_;
  if (embed_positions_) position_leaf_ = arena_.leaf(embed_positions_);
  auto take_leaves = [&](Norm& norm) {
    norm.weight_leaf = arena_.leaf(norm.weight);
    if (norm.bias) norm.bias_leaf = arena_.leaf(norm.bias);
  };
  for (auto& layer : layers_) {
    take_leaves(layer->input_norm);
    take_leaves(layer->post_attention_norm);
  }
  take_leaves(final_norm_);
  if (config_.position == "rope") {
    auto [cos, sin] = rope_tables(config_);
    const at::ScalarType dtype = compute_dtype == at::kDouble ? at::kDouble : at::kFloat;
    cos_ = cos.to(device, dtype);
    sin_ = sin.to(device, dtype);
  }
}

void Decoder::initialize(uint64_t seed) {
  arena_.initialize(seed);
  for (const TransformedLayer& entry : transformed_) entry.layer->initialize(seed);
  arena_.refresh_compute();
}

at::Tensor Decoder::hidden(const ForwardContext& given, const at::Tensor& tokens_BT) {
  ForwardContext context = given;
  context.guide = guide_;
  const Positions place = positions(context, tokens_BT.size(1));
  auto drop = [&](const at::Tensor& x, const std::string& name) {
    if (!context.training || config_.dropout == 0) return x;
    return dropout(x, config_.dropout, static_cast<int64_t>(context.seed),
                   static_cast<int64_t>(stream_id("dropout:" + name)), element_clock(context, x));
  };
  auto maybe = [](const at::Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  // The residual add rides in the normalization that follows it, so each block hands on its branch
  // unadded.
  auto add_and_norm = [&](const at::Tensor& stream, const at::Tensor& branch, const Norm& norm) {
    return add_norm(branch, stream, norm.weight_leaf, maybe(norm.bias_leaf), config_.norm_eps,
                    config_.rms());
  };

  const at::Tensor rows = place.per_sequence ? tokens_BT.view({1, -1}) : tokens_BT;
  const at::Tensor embedded = embed(rows, embed_leaf_, maybe(place.learned), place.offset);
  at::Tensor stream =
      drop(embedded.view({tokens_BT.size(0), tokens_BT.size(1), config_.hidden_size}), "embed");
  at::Tensor normed, branch;
  for (auto& layer : layers_) {
    if (branch.defined()) {
      std::tie(normed, stream) = add_and_norm(stream, branch, layer->input_norm);
    } else {
      normed = norm(stream, layer->input_norm.weight_leaf, maybe(layer->input_norm.bias_leaf),
                    config_.norm_eps, config_.rms());
    }
    branch = drop(layer->attention(context, normed, place), layer->name + ".self_attn");
    std::tie(normed, stream) = add_and_norm(stream, branch, layer->post_attention_norm);
    branch = drop(layer->mlp(context, normed), layer->name + ".mlp");
  }
  std::tie(normed, stream) = add_and_norm(stream, branch, final_norm_);
  if (place.per_sequence) {
    context.cache->lengths.add_(1);
  } else if (context.cache) {
    context.cache->length += tokens_BT.size(1);
  }
  return normed;
}

Positions Decoder::positions(const ForwardContext& context, int64_t tokens) const {
  Positions place{cos_, sin_, position_leaf_, 0, false};
  if (context.cache && context.cache->lengths.defined()) {
    const at::Tensor& lengths = context.cache->lengths;
    if (tokens != 1) throw std::logic_error("a cache with lengths takes one token a sequence");
    for (at::Tensor* table : {&place.cos, &place.sin, &place.learned}) {
      if (table->defined()) *table = table->index_select(0, lengths);
    }
    place.per_sequence = true;
    return place;
  }
  place.offset = context.cache ? context.cache->length : 0;
  if (place.offset + tokens > config_.max_position_embeddings) {
    fail("{} tokens do not fit the model's max_position_embeddings = {}", place.offset + tokens,
         config_.max_position_embeddings);
  }
  return place;
}

bool Decoder::follows_lengths() const {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const auto& layer) { return layer->follows_lengths(); });
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  return at::linear(hidden, head_leaf_.narrow(0, 0, config_.vocab_size));
}

Decoder::Loss Decoder::loss(const ForwardContext& context, const at::Tensor& tokens_BT,
                            const at::Tensor& targets_BT) {
  const at::Tensor states = hidden(context, tokens_BT);
  if (takes_split_head(states, config_.vocab_size))
    return split_loss(states, head_leaf_, targets_BT, config_.vocab_size);
  const CrossEntropy loss =
      linear_cross_entropy(states, head_leaf_, targets_BT, config_.vocab_size);
  return {loss.loss_sum, loss.num_correct};
}

KvCache Decoder::make_cache(int64_t batch, int64_t max_length) const {
  KvCache cache;
  const auto options = arena_.compute().options();
  const std::vector<int64_t> shape = {batch, config_.num_key_value_heads, max_length,
                                      config_.head_dim};
  for (int64_t i = 0; i < config_.num_hidden_layers; ++i) {
    cache.keys.push_back(at::empty(shape, options));
    cache.values.push_back(at::empty(shape, options));
  }
  return cache;
}

}  // namespace refract
