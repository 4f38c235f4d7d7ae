// The slots: what a decoder layer multiplies by, it gets from a LayerFactory at construction.
//
// A new compute paradigm implements LinearLayer (one forward function) or AttentionCore, and a
// LayerFactory that hands them out; everything else composes. A fused form overrides Projections
// where it pays.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "model/parameters.h"

namespace refract {

// Keys and values of the tokens so far, for decoding. Preallocated: [batch, kv heads, max length,
// head_dim] per layer.
//
// Either every sequence holds `length` tokens, which the host knows. Or each holds a number of its
// own, `lengths`, which lies on the device so that a captured graph can advance it; a call then
// adds one token per sequence, its position is lengths[b], and the layers look at the first
// `attended` places, of which sequence b uses lengths[b] + 1. What lies behind those is masked and
// may be anything finite.
struct KvCache {
  std::vector<at::Tensor> keys, values;  // one per layer
  int64_t length = 0;                    // tokens held by every layer before this call
  at::Tensor lengths;                    // int64 [batch]; undefined: all hold `length`
  int64_t attended = 0;                  // with `lengths`: more than the longest of them

  // The same memory for `count` sequences from `first` on, empty and with lengths of the host.
  KvCache rows(int64_t first, int64_t count) const;
};

// What a forward pass needs to know beside its input.
struct ForwardContext {
  bool training = false;
  uint64_t seed = 0;  // of the run, for noise and dropout
  at::Tensor clock;   // int64 [2] on the device: optimizer step, first sequence of the micro-batch
                      // in the global batch; on the device, so that a captured graph can advance
  // it. Always defined while training; evaluation counts its windows in it, with
  // the step kEvaluationStep. Where it is undefined (generation) noise is drawn
  // as for the first sequence of an evaluation.
  bool weights_changed = true;  // false: no parameter was written since this model's last forward
                                // pass, so that what a layer derived from its weight is still good
  at::Tensor guide;  // float [1] on the device: the guide's share a of the output of each layer
                     // that has one (self-guided training); undefined: the layer alone
  KvCache* cache = nullptr;
};
// Stands for the optimizer step in the clock of an evaluation, so that its noise is that of no
// step.
inline constexpr int64_t kEvaluationStep = -1;

// The clock of an op that draws a number per element of x [B, ...]: (step, index of x's first
// element in the global batch), so that any cut of the batch into micro-batches draws the same
// numbers.
at::Tensor element_clock(const ForwardContext& context, const at::Tensor& x);

enum class Activation { kNone, kGelu, kGeluTanh, kSwiglu };

// One linear layer in_features -> out_features.
struct LinearSpec {
  std::string name;  // "model.layers.3.mlp.up_proj"
  int64_t in_features = 0, out_features = 0;
  bool bias = false;
  double init_std = 0.02;
  int64_t layer = 0;  // index of the decoder layer
};

// The linear layers that share one input, applied together: {q, k, v}, {o}, {gate, up} or {up},
// {down}.
struct ProjectionSpec {
  std::vector<LinearSpec> members;
  Activation activation = Activation::kNone;  // after the bias; kSwiglu takes members {gate, up}
};

// Scaled dot-product attention of one layer.
struct AttentionSpec {
  std::string name;  // "model.layers.3.self_attn"
  int64_t layer = 0;
  int64_t num_heads = 0, num_kv_heads = 0, head_dim = 0;
  double scale = 1;  // of the scores
  double dropout = 0;
  int64_t window = 0;  // keys that a query sees, its own the last of them; 0: all before it
};

// One linear layer of some kind: the product without its bias.
class LinearLayer {
 public:
  virtual ~LinearLayer() = default;
  // x [..., in_features] -> [..., out_features], compute dtype.
  virtual at::Tensor forward(const ForwardContext& context, const at::Tensor& x) = 0;

  // What follows concerns kinds whose parameters are not just "<name>.weight" [out, in].

  // Called once after the arena drew its values from `seed`: for starting values that are more than
  // independent draws. Works on master values (arena.value(...)).
  virtual void initialize(uint64_t /*seed*/) {}
  // Sets the parameters to stand for a dense weight [out, in] (float or double, CPU) as well as
  // they can; returns the relative error |W' - W| / |W| in the Frobenius norm. Biases are not the
  // layer's. The default copies into "<name>.weight".
  virtual double take_over(const at::Tensor& weight) = 0;
  // The dense weight [out, in] that the layer multiplies by, from master values and in their type;
  // undefined where there is none.
  virtual at::Tensor merged() const = 0;
  // Whether forward(x) is x merged()^T up to rounding outside training, without noise or
  // quantization, so that the merged weight may stand in for the layer.
  virtual bool computes_merged() const { return false; }
  // Multiplications of the forward pass per token; 0: as many as a dense layer of its shape.
  virtual int64_t multiplications() const { return 0; }
  // The same of the guide beside it, in steps that use it (self-guided training).
  virtual int64_t guide_multiplications() const { return 0; }
};

// A linear layer that a model was built with and that is not plainly dense, for loading, merging
// and reports.
struct TransformedLayer {
  LinearSpec spec;
  std::string kind;
  LinearLayer* layer = nullptr;  // owned by its group
};

// Everything a layer declares its state in while a model is built.
struct Build {
  ParameterArena& arena;
  BufferStore& buffers;
  std::vector<TransformedLayer>& transformed;
};

class Projections {
 public:
  virtual ~Projections() = default;
  // x [..., in_features] -> the members' outputs side by side on the last dimension, bias and
  // activation applied:
  // [..., sum of out_features], with kSwiglu [..., out_features of one].
  virtual at::Tensor forward(const ForwardContext& context, const at::Tensor& x) = 0;
};

class AttentionCore {
 public:
  virtual ~AttentionCore() = default;
  // q [B, T, H, D], k and v [B, T, K, D], positions already applied -> [B, T, H * D]. Causal.
  // With a cache, k and v are appended to it and all of it is attended to.
  virtual at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                             const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) = 0;
  // Whether forward() follows KvCache::lengths. Otherwise sequences are decoded one at a time, and
  // without a graph.
  virtual bool follows_lengths() const { return false; }
  // Whether forward() follows AttentionSpec::window. Otherwise a call with more keys than the
  // window is refused.
  virtual bool follows_window() const { return false; }
  // The same from the joint output of the projections, qkv [B, T, (H + 2 K) * D], for a core that
  // reads it as it lies. The default takes it apart.
  virtual at::Tensor forward_joint(const ForwardContext& context, const AttentionSpec& spec,
                                   const at::Tensor& qkv);
};

class LayerFactory {
 public:
  virtual ~LayerFactory() = default;
  virtual std::unique_ptr<Projections> projections(Build build,
                                                   const ProjectionSpec& spec) const = 0;
  virtual std::unique_ptr<AttentionCore> attention(Build build,
                                                   const AttentionSpec& spec) const = 0;
};

// Projections of any members by composition: each layer in its turn, then bias and activation.
class ComposedProjections : public Projections {
 public:
  ComposedProjections(Build build, const ProjectionSpec& spec,
                      std::vector<std::unique_ptr<LinearLayer>> layers);
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override;

 private:
  std::vector<std::unique_ptr<LinearLayer>> layers_;
  std::vector<int64_t> out_features_;
  std::vector<Parameter*> biases_;  // null for a member without one
  bool any_bias_ = false;
  Activation activation_;
  ParameterArena& arena_;
};

// y [..., n] -> activation(y + bias); `bias` may be undefined.
at::Tensor apply_epilogue(const at::Tensor& y, const at::Tensor& bias, Activation activation);

// Appends k, v [B, T, K, D] of `layer` to the cache and returns all keys and values so far, [B, K,
// length + T, D]; with lengths [B, K, attended, D], of which sequence b uses the first lengths[b] +
// 1.
std::pair<at::Tensor, at::Tensor> append_to_cache(KvCache& cache, int64_t layer,
                                                  const at::Tensor& k_BTKD,
                                                  const at::Tensor& v_BTKD);

}  // namespace refract
