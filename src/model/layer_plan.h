// What a decoder is made of: the names, widths, starting values and scales that follow from its
// settings. They are derived here and nowhere else. Decoder builds what the plan says,
// BatchedDecoder repeats it for many models at once, and the count of operations reads it.
//
// A new model option is a setting (model/config.h), its part of the plan, and what Decoder computes
// with it. Its name goes into LayerPlan::extras: whoever repeats a layer in another way refuses an
// extra that it does not know.
#pragma once
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "model/config.h"
#include "model/slots.h"

namespace refract {

// A normalization of the last dimension: parameters "<name>.weight" [width] and, unless it is an
// RMSNorm, "<name>.bias" [width].
struct NormPlan {
  std::string name;  // "model.layers.3.input_layernorm"
  int64_t width = 0;
  bool rms = false;
  double eps = 0;
};

// A parameter [rows, width] with one row per token or position.
struct TablePlan {
  std::string name;  // "model.embed_tokens.weight"
  int64_t rows = 0, width = 0;
  double init_std = 0;
  double init_cut = 0;  // starting values beyond +-cut are drawn again; 0: none are
};

// One decoder layer. Its parts are in the order in which they are declared and computed:
//   x = x + output(attention(rotate(head_norms(qkv(input_norm(x))))))
//   x = x + down(up(post_attention_norm(x)))
// or, where it is parallel, both branches from the x that came in.
struct LayerPlan {
  std::string name;  // "model.layers.3"
  NormPlan input_norm;
  ProjectionSpec qkv;                      // members q, k, v
  std::optional<NormPlan> q_norm, k_norm;  // of each head; "qk_norm"
  int64_t rotated_heads = 0;  // the first heads of the joint q, k, v, which rotary positions turn
  // A rotated head turns its channels 2 i and 2 i + 1 together; "rotary_interleaved".
  bool rotary_interleaved = false;
  AttentionSpec attention;  // its name is that of the whole branch, "model.layers.3.self_attn"
  ProjectionSpec output;    // member o
  NormPlan post_attention_norm;
  std::string mlp;        // the name of the feed-forward branch, "model.layers.3.mlp"
  ProjectionSpec up;      // members gate and up, or up alone; with the activation
  ProjectionSpec down;    // member down
  double dropout = 0;     // of both branches
  bool parallel = false;  // "parallel_residual"
  // What the layer computes beyond the lines above, by the names of the settings.
  std::vector<std::string> extras;
};

struct ModelPlan {
  TablePlan tokens;                    // the token embedding, [vocabulary, C]
  std::optional<TablePlan> positions;  // learned ones
  bool rotary = false;                 // positions turn q and k (model/rope.h)
  int64_t longest = 0;                 // positions that there are
  int64_t longest_cached = 0;          // of a sequence in a KV cache
  double dropout = 0;                  // of the embeddings
  std::vector<LayerPlan> layers;
  NormPlan final_norm;
  std::optional<TablePlan> head;  // without it the head is the token embedding
};

// The configuration must be resolved (model/config.h).
LayerPlan layer_plan(const ModelConfig& config, int64_t index);
ModelPlan model_plan(const ModelConfig& config);

// The parameter that the logits are computed with.
const TablePlan& head_of(const ModelPlan& plan);

// The four groups of linear layers, in their order.
std::vector<const ProjectionSpec*> projections_of(const LayerPlan& plan);

// Names of what rules can stand for, linear layers and attentions, in the order of the model.
std::vector<std::string> module_names(const ModelPlan& plan);

// The extras of any layer that are not among `known`, each once.
std::vector<std::string> unknown_extras(const ModelPlan& plan, const std::set<std::string>& known);

// The members' outputs side by side, before the activation.
int64_t output_width(const ProjectionSpec& spec);
// Multiplications per token of dense members, which is the number of their weights.
int64_t dense_multiplications(const ProjectionSpec& spec);

}  // namespace refract
