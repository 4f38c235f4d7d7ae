// Floating-point operations of a decoder, counted from its dimensions.
//
// Convention. A multiply and an add are two operations. Only matrix products count: projections,
// attention products, feed-forward, output head; not norms, softmax, activations, embeddings'
// look-up or the optimizer. The attention products (Q K^T and A V) are counted in full, all T keys
// for each query (no more than a sliding window), although a causal kernel may skip half of them;
// the backward pass costs twice the forward pass (once where a matrix is not trained: the gradient
// of its input alone; not at all below the lowest layer that is trained), and recomputation is not
// counted. This is the
// accounting of Wei et al. (NeurIPS 2024, arXiv 2406.16450), whose published totals it reproduces,
// and of the usual model FLOPs utilization (PaLM, arXiv 2204.02311, appendix B).
#pragma once
#include <cstdint>
#include <vector>

namespace refract {

struct LayerPlan;
struct ModelConfig;

struct DecoderShape {
  int64_t hidden_size = 0;        // C
  int64_t num_layers = 0;         // L
  int64_t num_heads = 0;          // H
  int64_t num_kv_heads = 0;       // K; 0: H
  int64_t head_dim = 0;           // D; 0: C / H
  int64_t intermediate_size = 0;  // F
  int64_t vocab_size = 0;         // V
  int64_t context = 0;            // T, tokens per sequence
  int64_t window = 0;             // keys that a query of a windowed layer sees
  int64_t windowed_layers = 0;    // of the L layers, those with that window
  bool gated = false;             // three feed-forward matrices instead of two
  bool tied = true;               // the head's matrix is the token embedding's
  // Multiplications per token in the feed-forward of each layer, for layers that are not dense
  // (low rank: (C + F) R for each of its linear layers). Empty: all layers are dense.
  std::vector<double> ffn_multiplications = {};
  // The same of the projections q, k, v, o of each layer.
  std::vector<double> attention_multiplications = {};
  // What the dense guides of self-guided training multiply per token, of all layers together, in a
  // step that computes them: on top of the above.
  double ffn_guide_multiplications = 0, attention_guide_multiplications = 0;
  // Of what the layers multiply per token, all of them together, the part by matrices that are not
  // trained because adapters are; and whether the head's is one.
  double ffn_frozen_multiplications = 0, attention_frozen_multiplications = 0;
  bool frozen_head = false;
  // Where only the upper part of a model is trained, the backward pass ends in its lowest layer:
  // how many layers lie below it, and what they multiply. nothing_trained: there is no backward
  // pass.
  int64_t forward_only_layers = 0;
  double ffn_forward_only_multiplications = 0, attention_forward_only_multiplications = 0;
  bool nothing_trained = false;
};

// Keys that a query sees on average in a causal attention over `context` tokens; window 0: none.
double mean_keys(int64_t context, int64_t window);

// What a layer's dense feed-forward multiplies per token, and its q, k, v and o.
double ffn_multiplications_of(const LayerPlan& plan);
double attention_multiplications_of(const LayerPlan& plan);
// The feed-forward's for a dense layer of these dimensions.
double dense_ffn_multiplications(const DecoderShape& shape);

enum class AttentionCount {
  kFull,    // T keys for each query: the convention above
  kCausal,  // (T + 1) / 2 keys on average: what a causal kernel has to do at least
};

// Operations per token, or of a whole run, by part.
struct Flops {
  double attention_projections = 0;  // q, k, v, o
  double attention_products = 0;     // Q K^T and A V
  double ffn = 0;
  double head = 0;

  double total() const { return attention_projections + attention_products + ffn + head; }
  Flops operator*(double factor) const;
  Flops operator+(const Flops& other) const;
};

// Forward pass, per token at a sequence length of `shape.context`. Throws Error for a shape with
// missing dimensions or a list of feed-forwards that is not as long as the model is deep.
Flops forward_flops_per_token(const DecoderShape& shape,
                              AttentionCount attention = AttentionCount::kFull);
// Forward and backward pass: three times the forward pass, less the gradients of frozen matrices.
// Every layer passes a gradient on, although none below the first adapter would have to.
Flops training_flops_per_token(const DecoderShape& shape,
                               AttentionCount attention = AttentionCount::kFull);

// What the guides add to that, per token of a step that computes them.
Flops guide_flops_per_token(const DecoderShape& shape);

// A whole training run. Steps that compute the guides cost guide_flops_per_token() more; those that
// self_guided.reduce_flop leaves out cost what the model costs.
struct TrainingRun {
  double steps = 0;         // all of them, those on repeated data too
  double guided_steps = 0;  // of these, the ones that compute the guides
  double tokens_per_step = 0;
};
Flops training_flops(const DecoderShape& shape, const TrainingRun& run);

// Elements of the weight matrices; vectors (biases, norms) are left out.
struct MatrixParameters {
  int64_t token_embedding = 0;
  int64_t attention = 0;
  int64_t ffn = 0;
  int64_t head = 0;  // 0 when tied

  int64_t without_embeddings() const { return attention + ffn; }
  int64_t total() const { return token_embedding + attention + ffn + head; }
};
MatrixParameters matrix_parameters(const DecoderShape& shape);

// The dimensions of a resolved model at a sequence length; 0 takes the model's longest.
DecoderShape shape_of(const ModelConfig& config, int64_t context = 0);

}  // namespace refract
