// A pre-norm decoder-only transformer. Shapes: B batch, T tokens, C hidden_size, V vocabulary.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/attention/documents.h"
#include "model/config.h"
#include "model/layer_plan.h"
#include "model/parameters.h"
#include "model/slots.h"

namespace refract {

// One normalization with its weight (and bias).
struct Norm {
  Parameter *weight = nullptr, *bias = nullptr;
  double eps = 0;
  bool rms = false;
  at::Tensor weight_leaf, bias_leaf;
};

class DecoderLayer;

// How the positions of a call's tokens enter the model.
struct Positions {
  at::Tensor cos, sin;     // of rope: rows of the tables; undefined without it
  at::Tensor learned;      // rows of the position embedding; undefined without it
  int64_t offset = 0;      // row of the first token
  bool per_token = false;  // the rows are one for each token of the batch, in its order
  std::shared_ptr<const Documents> documents;  // where they are isolated
};

class Decoder {
 public:
  // Declares all parameters; allocates nothing. The factory fills the slots.
  Decoder(const ModelConfig& config, const LayerFactory& factory);
  ~Decoder();
  Decoder(const Decoder&) = delete;
  Decoder& operator=(const Decoder&) = delete;

  // Draws all starting values from `seed`: the arena's parameters, then what layers make of them.
  void initialize(uint64_t seed);

  // Allocates arena and buffers. compute_dtype is what the forward pass runs in; master_dtype what
  // is kept.
  void allocate(at::Device device, at::ScalarType compute_dtype,
                at::ScalarType master_dtype = at::kFloat);

  // The same of a model that never changes and takes its parameters of these names from `other`,
  // see ParameterArena::allocate_beside(); on its device and in its compute type.
  void allocate_beside(Decoder& other, const std::set<std::string>& shared);

  // The share of the guides in every forward pass from now on, float [1] on the device
  // (ForwardContext::guide); an undefined one leaves the guides out.
  void set_guide(at::Tensor share) { guide_ = std::move(share); }

  // From now on a document begins at each of these tokens in a call without a cache: positions
  // begin again there, and no token sees another document. Nothing: all of a window is one text.
  void isolate_documents(std::optional<int64_t> beginning) { document_token_ = beginning; }
  std::optional<int64_t> document_token() const { return document_token_; }

  // tokens [B, T] int32 or int64 -> final normalized hidden states [B, T, C].
  at::Tensor hidden(const ForwardContext& context, const at::Tensor& tokens_BT);
  // hidden [..., C] -> logits [..., V].
  at::Tensor logits(const at::Tensor& hidden);
  struct Loss {
    at::Tensor sum;      // float32 or float64 scalar: nats, summed over targets that are not -100
    at::Tensor correct;  // int64 scalar: targets that are the argmax (without gradient only)
  };
  // The batch's V-wide logits never exist. Without gradient, fp32 logits of a large vocabulary come
  // from tensor cores if they can, within 3 * 2^-16 of the sum of |products| (ops/many/split.h);
  // the mean loss is within 1e-6 of itself, plus 1e-6 nats where nearly all mass is on one class.
  Loss loss(const ForwardContext& context, const at::Tensor& tokens_BT,
            const at::Tensor& targets_BT);

  // An empty cache for `batch` sequences of up to `max_length` tokens.
  KvCache make_cache(int64_t batch, int64_t max_length) const;
  // Whether every layer follows KvCache::lengths.
  bool follows_lengths() const;

  const ModelConfig& config() const { return config_; }
  const ModelPlan& plan() const { return plan_; }
  ParameterArena& arena() { return arena_; }
  const ParameterArena& arena() const { return arena_; }
  BufferStore& buffers() { return buffers_; }
  // The linear layers that are not plainly dense, in the order of the model.
  const std::vector<TransformedLayer>& transformed() const { return transformed_; }
  at::Device device() const { return arena_.master().device(); }

 private:
  void take_leaves(at::Device device, at::ScalarType compute_dtype);
  Positions positions(const ForwardContext& context, const at::Tensor& tokens_BT);
  void isolate(Positions& place, const at::Tensor& tokens_BT) const;
  const std::pair<at::Tensor, at::Tensor>& stretched(int64_t length);

  ModelConfig config_;
  ModelPlan plan_;
  ParameterArena arena_;
  BufferStore buffers_;
  std::vector<TransformedLayer> transformed_;
  at::Tensor guide_;
  Parameter *embed_tokens_ = nullptr, *embed_positions_ = nullptr, *lm_head_ = nullptr;
  std::vector<std::unique_ptr<DecoderLayer>> layers_;
  Norm final_norm_;
  at::Tensor cos_, sin_;  // [plan_.longest_cached, D / 2] float
  // The same for whole sequences of a length beyond that, by length. A captured graph may read
  // them, so they stay.
  std::map<int64_t, std::pair<at::Tensor, at::Tensor>> stretched_;
  at::Tensor embed_leaf_, position_leaf_, head_leaf_;
  std::optional<int64_t> document_token_;  // begins an isolated document
};

}  // namespace refract
