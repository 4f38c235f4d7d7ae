#include "model/layer_plan.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "core/error.h"

namespace refract {
namespace {

NormPlan norm_plan(const ModelConfig& config, const std::string& name) {
  return {name, config.hidden_size, config.rms(), config.norm_eps};
}

Activation activation_of(const ModelConfig& config) {
  if (config.gated()) return Activation::kSwiglu;
  return config.hidden_act == "gelu" ? Activation::kGelu : Activation::kGeluTanh;
}

// Starting weights as torchtitan draws them for a Llama (its models/llama, init_weights). Its cut
// of linear layers, at +-2, lies 100 standard deviations out and cuts nothing.
bool torchtitan(const ModelConfig& c) { return c.init_scheme == "torchtitan"; }

double depth_std(const ModelConfig& c, int64_t index) {
  return c.initializer_range / std::sqrt(2.0 * static_cast<double>(index + 1));
}

// Of the layers that write to the residual stream.
double residual_std(const ModelConfig& c, int64_t index) {
  if (torchtitan(c)) return depth_std(c, index);
  if (!c.scaled_residual_init) return c.initializer_range;
  return c.initializer_range / std::sqrt(2.0 * static_cast<double>(c.num_hidden_layers));
}

double score_scale(const ModelConfig& c, int64_t index) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(c.head_dim));
  return c.scale_attn_by_inverse_layer_idx ? scale / static_cast<double>(index + 1) : scale;
}

void plan_attention(const ModelConfig& c, int64_t index, LayerPlan& plan) {
  const std::string name = plan.name + ".self_attn";
  const int64_t C = c.hidden_size, queries = c.attention_width(), keys = c.key_value_width();
  const double std = c.initializer_range;
  plan.qkv.members = {{name + ".q_proj", C, queries, c.attention_bias, std, index},
                      {name + ".k_proj", C, keys, c.attention_bias, std, index},
                      {name + ".v_proj", C, keys, c.attention_bias, std, index}};
  if (c.qk_norm) {
    plan.q_norm = NormPlan{name + ".q_norm", c.head_dim, /*rms=*/true, c.norm_eps};
    plan.k_norm = NormPlan{name + ".k_norm", c.head_dim, /*rms=*/true, c.norm_eps};
    plan.extras.emplace_back("qk_norm");
  }
  if (c.position == "rope") plan.rotated_heads = c.num_attention_heads + c.num_key_value_heads;
  if (c.rotary_interleaved) {
    plan.rotary_interleaved = true;
    plan.extras.emplace_back("rotary_interleaved");
  }
  plan.attention = {name,
                    index,
                    c.num_attention_heads,
                    c.num_key_value_heads,
                    c.head_dim,
                    score_scale(c, index),
                    c.attention_dropout,
                    c.window_of(index)};
  if (plan.attention.window > 0) plan.extras.emplace_back("sliding_window");
  if (c.position == "rope" && c.rope_scaling == "dynamic")
    plan.extras.emplace_back("dynamic rope_scaling");
  plan.output.members = {
      {name + ".o_proj", queries, C, c.attention_output_bias, residual_std(c, index), index}};
}

void plan_feed_forward(const ModelConfig& c, int64_t index, LayerPlan& plan) {
  plan.mlp = plan.name + ".mlp";
  const int64_t C = c.hidden_size, F = c.intermediate_size;
  const auto up = [&](const char* name, double std) {
    return LinearSpec{plan.mlp + name, C, F, c.mlp_bias, std, index};
  };
  const double std = c.initializer_range;
  if (c.gated()) plan.up.members.push_back(up(".gate_proj", std));
  const bool by_depth = torchtitan(c) && c.gated();
  plan.up.members.push_back(up(".up_proj", by_depth ? depth_std(c, index) : std));
  plan.up.activation = activation_of(c);
  plan.down.members = {{plan.mlp + ".down_proj", F, C, c.mlp_bias, residual_std(c, index), index}};
}

}  // namespace

LayerPlan layer_plan(const ModelConfig& config, int64_t index) {
  LayerPlan plan;
  plan.name = fmt::format("model.layers.{}", index);
  plan.input_norm = norm_plan(config, plan.name + ".input_layernorm");
  plan_attention(config, index, plan);
  plan.post_attention_norm = norm_plan(config, plan.name + ".post_attention_layernorm");
  plan_feed_forward(config, index, plan);
  plan.dropout = config.dropout;
  plan.parallel = config.parallel_residual;
  if (plan.parallel) plan.extras.emplace_back("parallel_residual");
  return plan;
}

namespace {

// With tied embeddings the head's draw is the one that stays, as in torchtitan.
TablePlan token_table(const ModelConfig& c, const std::string& name, bool head) {
  TablePlan table{name, c.vocab_size, c.hidden_size, c.initializer_range};
  if (!torchtitan(c)) return table;
  table.init_std = head ? 1 / std::sqrt(static_cast<double>(c.hidden_size)) : 1;
  if (head) table.init_cut = 3 * table.init_std;
  return table;
}

}  // namespace

ModelPlan model_plan(const ModelConfig& config) {
  const int64_t C = config.hidden_size;
  ModelPlan plan;
  plan.tokens = token_table(config, "model.embed_tokens.weight", config.tie_word_embeddings);
  plan.rotary = config.position == "rope";
  plan.longest = config.longest();
  plan.longest_cached = config.longest_cached();
  plan.dropout = config.dropout_of_embeddings();
  if (config.position == "learned") {
    plan.positions = TablePlan{"model.embed_positions.weight", plan.longest, C,
                               config.position_initializer_range};
  }
  for (int64_t i = 0; i < config.num_hidden_layers; ++i)
    plan.layers.push_back(layer_plan(config, i));
  plan.final_norm = norm_plan(config, "model.norm");
  if (!config.tie_word_embeddings) plan.head = token_table(config, "lm_head.weight", /*head=*/true);
  return plan;
}

const TablePlan& head_of(const ModelPlan& plan) { return plan.head ? *plan.head : plan.tokens; }

std::vector<const ProjectionSpec*> projections_of(const LayerPlan& plan) {
  return {&plan.qkv, &plan.output, &plan.up, &plan.down};
}

std::vector<std::string> module_names(const ModelPlan& plan) {
  std::vector<std::string> names;
  for (const LayerPlan& layer : plan.layers) {
    for (const ProjectionSpec* group : projections_of(layer)) {
      for (const LinearSpec& member : group->members) names.push_back(member.name);
      if (group == &layer.qkv) names.push_back(layer.attention.name);
    }
  }
  return names;
}

std::vector<std::string> unknown_extras(const ModelPlan& plan, const std::set<std::string>& known) {
  std::set<std::string> unknown;
  for (const LayerPlan& layer : plan.layers) {
    std::ranges::copy_if(layer.extras, std::inserter(unknown, unknown.end()),
                         [&](const std::string& extra) { return !known.contains(extra); });
  }
  return {unknown.begin(), unknown.end()};
}

int64_t output_width(const ProjectionSpec& spec) {
  int64_t width = 0;
  for (const LinearSpec& member : spec.members) width += member.out_features;
  return width;
}

int64_t dense_multiplications(const ProjectionSpec& spec) {
  int64_t count = 0;
  for (const LinearSpec& member : spec.members) count += member.in_features * member.out_features;
  return count;
}

}  // namespace refract
