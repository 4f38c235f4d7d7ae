#include "model/decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/add.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "model/backward/layer_gradients.h"
#include "model/backward/recompute.h"
#include "model/backward/remake.h"
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

Parameter* declare_table(ParameterArena& arena, const TablePlan& plan, int64_t pad_rows_to = 1) {
  ParameterSpec spec{
      plan.name, {plan.rows, plan.width}, Init::normal(plan.init_std, plan.init_cut)};
  spec.table = true;
  return arena.declare(spec, pad_rows_to);
}

Norm declare_norm(ParameterArena& arena, const NormPlan& plan) {
  Norm norm;
  norm.weight = arena.declare({plan.name + ".weight", {plan.width}, Init::ones()});
  if (!plan.rms) norm.bias = arena.declare({plan.name + ".bias", {plan.width}, Init::zeros()});
  norm.eps = plan.eps;
  norm.rms = plan.rms;
  return norm;
}

void take_leaves(ParameterArena& arena, Norm& norm) {
  norm.weight_leaf = arena.leaf(norm.weight);
  if (norm.bias) norm.bias_leaf = arena.leaf(norm.bias);
}

std::optional<at::Tensor> maybe(const at::Tensor& t) {
  return t.defined() ? std::optional(t) : std::nullopt;
}

at::Tensor normalized(const at::Tensor& x, const Norm& by) {
  return norm(x, by.weight_leaf, maybe(by.bias_leaf), by.eps, by.rms);
}

// (normalized sum, sum): the residual add rides in the normalization that follows it, so each block
// hands on its branch unadded.
std::tuple<at::Tensor, at::Tensor> add_and_normalize(const at::Tensor& stream,
                                                     const at::Tensor& branch, const Norm& by) {
  return add_norm(branch, stream, by.weight_leaf, maybe(by.bias_leaf), by.eps, by.rms);
}

// Autograd keeps the sum for the norm's own gradient. `by` must outlive the backward pass.
void can_normalize_again(const at::Tensor& normed, const at::Tensor& sum, const Norm& by) {
  if (frees_cheap()) can_remake(normed, [sum = sum.detach(), &by] { return normalized(sum, by); });
}

at::Tensor dropped(const ForwardContext& context, const at::Tensor& x, double probability,
                   const std::string& name) {
  if (!context.training || probability == 0) return x;
  return dropout(x, probability, static_cast<int64_t>(context.seed),
                 static_cast<int64_t>(stream_id("dropout:" + name)), element_clock(context, x));
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

}  // namespace

class DecoderLayer {
 public:
  // The plan must outlive the layer.
  DecoderLayer(const LayerPlan& plan, const LayerFactory& factory, Build build);

  void take_leaves(ParameterArena& arena);
  // (stream, branch) -> (stream, branch): the sum of both is the layer's input, and its output. The
  // first layer's branch is undefined.
  std::pair<at::Tensor, at::Tensor> forward(const ForwardContext& context, at::Tensor stream,
                                            at::Tensor branch, const Positions& positions);
  // The same, of which autograd keeps the inputs alone.
  std::pair<at::Tensor, at::Tensor> forward_recomputed(const ForwardContext& context,
                                                       const at::Tensor& stream,
                                                       const at::Tensor& branch,
                                                       const Positions& positions);
  bool follows_lengths() const { return core_->follows_lengths(); }

 private:
  at::Tensor attention(const ForwardContext& context, const at::Tensor& x,
                       const Positions& positions);
  at::Tensor over_documents(const ForwardContext& context, const at::Tensor& qkv,
                            const Documents& documents) const;
  at::Tensor mlp(const ForwardContext& context, const at::Tensor& x);
  void check_window(const ForwardContext& context, int64_t tokens) const;
  at::Tensor with_normalized_heads(const at::Tensor& qkv) const;
  at::Tensor with_parted_channels(const at::Tensor& qkv) const;

  const LayerPlan& plan_;
  Norm input_norm_, post_attention_norm_;
  std::unique_ptr<Projections> qkv_, output_, up_, down_;
  std::optional<Norm> q_norm_, k_norm_;
  std::unique_ptr<AttentionCore> core_;
  std::vector<BufferStore::Buffer*> buffers_;  // the layer's own
};

// What is declared first comes first in the arena and in checkpoints.
DecoderLayer::DecoderLayer(const LayerPlan& plan, const LayerFactory& factory, Build build)
    : plan_(plan) {
  const size_t buffers = build.buffers.all().size();
  input_norm_ = declare_norm(build.arena, plan.input_norm);
  qkv_ = factory.projections(build, plan.qkv);
  if (plan.q_norm) q_norm_ = declare_norm(build.arena, *plan.q_norm);
  if (plan.k_norm) k_norm_ = declare_norm(build.arena, *plan.k_norm);
  core_ = factory.attention(build, plan.attention);
  output_ = factory.projections(build, plan.output);
  post_attention_norm_ = declare_norm(build.arena, plan.post_attention_norm);
  up_ = factory.projections(build, plan.up);
  down_ = factory.projections(build, plan.down);
  for (size_t i = buffers; i < build.buffers.all().size(); ++i)
    buffers_.push_back(&build.buffers.all()[i]);
}

void DecoderLayer::take_leaves(ParameterArena& arena) {
  refract::take_leaves(arena, input_norm_);
  refract::take_leaves(arena, post_attention_norm_);
  if (q_norm_) refract::take_leaves(arena, *q_norm_);
  if (k_norm_) refract::take_leaves(arena, *k_norm_);
}

// qkv [B, T, (H + 2 K) D]: every head of q and of k is normalized over its D channels.
at::Tensor DecoderLayer::with_normalized_heads(const at::Tensor& qkv) const {
  if (!q_norm_ && !k_norm_) return qkv;
  const auto heads = [&](const at::Tensor& part, const std::optional<Norm>& by) {
    if (!by) return part;
    return normalized(part.reshape({-1, plan_.attention.head_dim}), *by).view(part.sizes());
  };
  std::vector<int64_t> widths;
  for (const LinearSpec& member : plan_.qkv.members) widths.push_back(member.out_features);
  const std::vector<at::Tensor> parts = qkv.split_with_sizes(widths, -1);
  return at::cat({heads(parts[0], q_norm_), heads(parts[1], k_norm_), parts[2]}, -1);
}

// Every rotated head's channels 2 i come before its channels 2 i + 1, so that what turns together
// lies half a head apart, as rope() wants it. q and k are reordered alike, and a score is a sum
// over channels: it does not see the order.
at::Tensor DecoderLayer::with_parted_channels(const at::Tensor& qkv) const {
  if (!plan_.rotary_interleaved) return qkv;
  const int64_t heads = plan_.rotated_heads, D = plan_.attention.head_dim;
  const int64_t rest = qkv.size(-1) - heads * D;
  const at::Tensor turned = qkv.narrow(-1, 0, heads * D);
  const at::Tensor parted =
      turned.reshape({-1, heads, D / 2, 2}).transpose(2, 3).reshape(turned.sizes());
  return at::cat({parted, qkv.narrow(-1, heads * D, rest)}, -1);
}

// Fails where a query would see more than its window, because the attention has none.
void DecoderLayer::check_window(const ForwardContext& context, int64_t tokens) const {
  const int64_t window = plan_.attention.window;
  if (window == 0 || core_->follows_window()) return;
  int64_t keys = tokens;
  if (const KvCache* cache = context.cache)
    keys = cache->lengths.defined() ? cache->attended : cache->length + tokens;
  if (keys <= window) return;
  fail_usage(
      "'{}' would attend to {} tokens, but model.sliding_window = {}: this kind of attention has "
      "no window, so texts (data.context) can have {} tokens at most; or leave the attention out "
      "of the rules",
      plan_.attention.name, keys, window, window);
}

at::Tensor DecoderLayer::over_documents(const ForwardContext& context, const at::Tensor& qkv,
                                        const Documents& documents) const {
  auto* plain = dynamic_cast<SdpaAttention*>(core_.get());
  if (plain) return plain->forward_documents(context, qkv, documents);
  fail_usage(
      "data.documents = \"isolated\": the attention '{}' is of a kind that can't keep documents "
      "apart; leave the attention out of the rules, or join the documents",
      plan_.attention.name);
}

at::Tensor DecoderLayer::attention(const ForwardContext& context, const at::Tensor& x,
                                   const Positions& place) {
  check_window(context, x.size(1));
  const at::Tensor projected = qkv_->forward(context, x);
  free_until_backward(x, projected);
  at::Tensor qkv = with_parted_channels(with_normalized_heads(projected));
  if (plan_.rotated_heads > 0) {
    const at::Tensor rows = place.per_token ? qkv.view({x.size(0) * x.size(1), -1}) : qkv;
    qkv = rope(rows, place.cos, place.sin, place.offset, plan_.rotated_heads,
               plan_.attention.head_dim)
              .view(qkv.sizes());
  }
  const at::Tensor mixed = place.documents ? over_documents(context, qkv, *place.documents)
                                           : core_->forward_joint(context, plan_.attention, qkv);
  return output_->forward(context, mixed);
}

at::Tensor DecoderLayer::mlp(const ForwardContext& context, const at::Tensor& x) {
  const at::Tensor wide = up_->forward(context, x);
  free_until_backward(x, wide);
  const at::Tensor out = down_->forward(context, wide);
  free_until_backward(wide, out);
  return out;
}

// Each half hands on its branch unadded, see add_and_normalize().
std::pair<at::Tensor, at::Tensor> DecoderLayer::forward(const ForwardContext& context,
                                                        at::Tensor stream, at::Tensor branch,
                                                        const Positions& positions) {
  at::Tensor normed;
  if (branch.defined()) {
    std::tie(normed, stream) = add_and_normalize(stream, branch, input_norm_);
  } else {
    normed = normalized(stream, input_norm_);
  }
  can_normalize_again(normed, stream, input_norm_);
  branch =
      dropped(context, attention(context, normed, positions), plan_.dropout, plan_.attention.name);
  if (plan_.parallel) {
    const at::Tensor second = normalized(stream, post_attention_norm_);
    can_normalize_again(second, stream, post_attention_norm_);
    branch = at::add(branch, dropped(context, mlp(context, second), plan_.dropout, plan_.mlp));
    return {stream, branch};
  }
  std::tie(normed, stream) = add_and_normalize(stream, branch, post_attention_norm_);
  can_normalize_again(normed, stream, post_attention_norm_);
  return {stream, dropped(context, mlp(context, normed), plan_.dropout, plan_.mlp)};
}

std::pair<at::Tensor, at::Tensor> DecoderLayer::forward_recomputed(const ForwardContext& context,
                                                                   const at::Tensor& stream,
                                                                   const at::Tensor& branch,
                                                                   const Positions& positions) {
  std::vector<at::Tensor> inputs = {stream};
  if (branch.defined()) inputs.push_back(branch);
  const std::vector<at::Tensor> outputs =
      recomputed(inputs, buffers_, [this, context, positions](const std::vector<at::Tensor>& in) {
        auto [sum, rest] = forward(context, in[0], in.size() > 1 ? in[1] : at::Tensor(), positions);
        return std::vector<at::Tensor>{std::move(sum), std::move(rest)};
      });
  return {outputs[0], outputs[1]};
}

Decoder::Decoder(const ModelConfig& config, const LayerFactory& factory)
    : config_(config), plan_(model_plan(config)) {
  const Build build{arena_, buffers_, transformed_};
  const int64_t padding = plan_.tokens.rows >= kPadVocabularyFrom ? 64 : 1;
  embed_tokens_ = declare_table(arena_, plan_.tokens, padding);
  if (plan_.positions) embed_positions_ = declare_table(arena_, *plan_.positions);
  for (const LayerPlan& layer : plan_.layers)
    layers_.push_back(std::make_unique<DecoderLayer>(layer, factory, build));
  final_norm_ = declare_norm(arena_, plan_.final_norm);
  if (plan_.head) lm_head_ = declare_table(arena_, *plan_.head, padding);
  arena_.freeze_all_but_adapters();
}

Decoder::~Decoder() = default;

void Decoder::allocate(at::Device device, at::ScalarType compute_dtype,
                       at::ScalarType master_dtype) {
  if (plan_.rotary) check_rope_tables(config_);
  arena_.allocate(device, master_dtype, compute_dtype);
  take_leaves(device, compute_dtype);
}

void Decoder::allocate_beside(Decoder& other, const std::set<std::string>& shared) {
  const at::ScalarType dtype = other.arena().compute().scalar_type();
  arena_.allocate_beside(other.arena(), shared, other.device(), dtype);
  take_leaves(other.device(), dtype);
}

void Decoder::take_leaves(at::Device device, at::ScalarType compute_dtype) {
  buffers_.to(device);
  embed_leaf_ = arena_.leaf(embed_tokens_);
  head_leaf_ = lm_head_ ? arena_.leaf(lm_head_) : embed_leaf_;
  if (embed_positions_) position_leaf_ = arena_.leaf(embed_positions_);
  for (auto& layer : layers_) layer->take_leaves(arena_);
  refract::take_leaves(arena_, final_norm_);
  stretched_.clear();
  if (plan_.rotary) {
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
  const Positions place = positions(context, tokens_BT);
  const at::Tensor rows = place.per_token ? tokens_BT.reshape({1, -1}) : tokens_BT;
  const at::Tensor embedded = embed(rows, embed_leaf_, maybe(place.learned), place.offset);
  at::Tensor stream =
      dropped(context, embedded.view({tokens_BT.size(0), tokens_BT.size(1), plan_.tokens.width}),
              plan_.dropout, "embed");
  const bool twice = context.training && at::GradMode::is_enabled() &&
                     RecomputeScope::current() == Recompute::kLayer;
  at::Tensor normed, branch;
  for (size_t i = 0; i < layers_.size(); ++i) {
    if (branch.defined()) LayerGradients::watch(branch, static_cast<int64_t>(i));
    DecoderLayer& layer = *layers_[i];
    std::tie(stream, branch) =
        twice ? layer.forward_recomputed(context, stream, branch, place)
              : layer.forward(context, std::move(stream), std::move(branch), place);
  }
  LayerGradients::watch(branch, static_cast<int64_t>(layers_.size()));
  std::tie(normed, stream) = add_and_normalize(stream, branch, final_norm_);
  if (context.cache && context.cache->lengths.defined()) {
    context.cache->lengths.add_(1);
  } else if (context.cache) {
    context.cache->length += tokens_BT.size(1);
  }
  return normed;
}

const std::pair<at::Tensor, at::Tensor>& Decoder::stretched(int64_t length) {
  auto& tables = stretched_[length];
  if (!tables.first.defined()) {
    const auto [cos, sin] = rope_tables_for(config_, length);
    tables = {cos.to(cos_.options()), sin.to(sin_.options())};
  }
  return tables;
}

Positions Decoder::positions(const ForwardContext& context, const at::Tensor& tokens_BT) {
  const int64_t tokens = tokens_BT.size(1);
  Positions place{cos_, sin_, position_leaf_, 0, false, nullptr};
  if (context.cache && context.cache->lengths.defined()) {
    const at::Tensor& lengths = context.cache->lengths;
    if (tokens != 1) throw std::logic_error("a cache with lengths takes one token a sequence");
    for (at::Tensor* table : {&place.cos, &place.sin, &place.learned}) {
      if (table->defined()) *table = table->index_select(0, lengths);
    }
    place.per_token = true;
    return place;
  }
  place.offset = context.cache ? context.cache->length : 0;
  const int64_t end = place.offset + tokens;
  if (end > plan_.longest) {
    fail(
        "{} tokens do not fit the model's max_position_embeddings = {}{}", end,
        config_.max_position_embeddings,
        plan_.longest > config_.max_position_embeddings
            ? fmt::format(", which {} scaling stretches to {}", config_.rope_scaling, plan_.longest)
            : "");
  }
  if (context.cache && end > plan_.longest_cached) {
    fail(
        "{} tokens do not fit a cache of {}: with dynamic rotary scaling every angle follows from "
        "the whole length, and the keys that are kept were turned for a shorter one",
        end, plan_.longest_cached);
  }
  if (plan_.rotary && end > plan_.longest_cached) std::tie(place.cos, place.sin) = stretched(end);
  if (document_token_ && !context.cache) isolate(place, tokens_BT);
  return place;
}

void Decoder::isolate(Positions& place, const at::Tensor& tokens_BT) const {
  if (plan_.rotary && tokens_BT.size(1) > plan_.longest_cached) {
    fail_usage(
        "data.documents = \"isolated\": with dynamic rotary scaling every angle follows from the "
        "length of a document, so windows (data.context) can have {} tokens at most",
        plan_.longest_cached);
  }
  place.documents =
      std::make_shared<const Documents>(documents_of(tokens_BT, document_token_.value()));
  const at::Tensor rows = place.documents->places();
  for (at::Tensor* table : {&place.cos, &place.sin}) {
    if (table->defined()) *table = table->index_select(0, rows);
  }
  // Whose gradient is summed in a fixed order, as that of index_select is not on every device.
  if (place.learned.defined()) place.learned = at::embedding(place.learned, rows);
  place.per_token = true;
}

bool Decoder::follows_lengths() const {
  return std::all_of(layers_.begin(), layers_.end(),
                     [](const auto& layer) { return layer->follows_lengths(); });
}

at::Tensor Decoder::logits(const at::Tensor& hidden) {
  return at::linear(hidden, head_leaf_.narrow(0, 0, plan_.tokens.rows));
}

Decoder::Loss Decoder::loss(const ForwardContext& context, const at::Tensor& tokens_BT,
                            const at::Tensor& targets_BT) {
  const at::Tensor states = hidden(context, tokens_BT);
  if (takes_split_head(states, plan_.tokens.rows))
    return split_loss(states, head_leaf_, targets_BT, plan_.tokens.rows);
  const CrossEntropy loss = linear_cross_entropy(states, head_leaf_, targets_BT, plan_.tokens.rows);
  return {loss.loss_sum, loss.num_correct};
}

KvCache Decoder::make_cache(int64_t batch, int64_t max_length) const {
  KvCache cache;
  const auto options = arena_.compute().options();
  for (const LayerPlan& layer : plan_.layers) {
    const std::vector<int64_t> shape = {batch, layer.attention.num_kv_heads, max_length,
                                        layer.attention.head_dim};
    cache.keys.push_back(at::empty(shape, options));
    cache.values.push_back(at::empty(shape, options));
  }
  return cache;
}

}  // namespace refract
