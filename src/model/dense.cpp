#include "model/dense.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "core/random.h"
#include "model/attention/attention_shapes.h"
#include "model/attention_mask.h"
#include "model/backward/remake.h"
#include "ops/dense/activation/dropout.h"
#include "ops/dense/attention/attention.h"
#include "ops/dense/attention/decode_attention.h"
#include "ops/dense/linear/linear.h"

namespace refract {
namespace {

// [B, K, T, D] -> [B, H, T, D]: each key/value head serves H / K query heads.
at::Tensor repeat_heads(const at::Tensor& x, int64_t num_heads) {
  const int64_t groups = num_heads / x.size(1);
  if (groups == 1) return x;
  return x.unsqueeze(2)
      .expand({-1, -1, groups, -1, -1})
      .reshape({x.size(0), num_heads, x.size(2), x.size(3)});
}

}  // namespace

ParameterSpec weight_spec(const LinearSpec& spec) {
  return {
      spec.name + ".weight", {spec.out_features, spec.in_features}, Init::normal(spec.init_std)};
}

ParameterSpec bias_spec(const LinearSpec& spec) {
  return {spec.name + ".bias", {spec.out_features}, Init::zeros()};
}

DenseLinear::DenseLinear(Build build, const LinearSpec& spec)
    : weight_(build.arena.declare(weight_spec(spec))), arena_(build.arena) {}

at::Tensor DenseLinear::forward(const ForwardContext&, const at::Tensor& x) {
  return fused_linear(x, weight());
}

double DenseLinear::take_over(const at::Tensor& weight) {
  arena_.value(weight_).copy_(weight);
  return 0;
}

at::Tensor DenseLinear::merged() const { return arena_.value(weight_); }

DenseProjections::DenseProjections(Build build, const ProjectionSpec& spec)
    : activation_(spec.activation), arena_(build.arena) {
  std::vector<ParameterSpec> weights, biases;
  for (const LinearSpec& member : spec.members) {
    weights.push_back(weight_spec(member));
    if (member.bias) biases.push_back(bias_spec(member));
  }
  if (!biases.empty() && biases.size() != weights.size()) {
    throw std::logic_error("a dense group has biases for all members or for none");
  }
  weights_ = build.arena.declare_group(weights);
  biases_ = build.arena.declare_group(biases);
}

// A lookup costs a walk over all leaves, so that a leaf is kept.
at::Tensor DenseProjections::joint(at::Tensor& kept, const std::vector<Parameter*>& parameters) {
  if (kept.defined() || parameters.empty()) return kept;
  const at::Tensor all = arena_.joint_leaf(parameters);
  if (arena_.adjacent(parameters)) kept = all;
  return all;
}

at::Tensor DenseProjections::forward(const ForwardContext&, const at::Tensor& x) {
  const at::Tensor weight = joint(weight_, weights_), bias = joint(bias_, biases_);
  if (activation_ == Activation::kNone) {  // the GEMM's own epilogue adds the bias
    return fused_linear(x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
  }
  return apply_epilogue(fused_linear(x, weight), bias, activation_);
}

at::Tensor SdpaAttention::forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                                  const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) {
  const at::Tensor q = q_BTHD.transpose(1, 2);
  at::Tensor k, v;
  if (context.cache) {
    std::tie(k, v) = append_to_cache(*context.cache, spec_.layer, k_BTKD, v_BTKD);
    if (context.cache->lengths.defined()) return decode(q_BTHD, k, v, context.cache->lengths);
  } else {
    k = k_BTKD.transpose(1, 2);
    v = v_BTKD.transpose(1, 2);
  }
  const int64_t queries = q.size(2);
  const bool windowed = outgrows_window(k.size(2));
  if (windowed) {  // without the keys that even the first query no longer sees
    const int64_t seen = std::min(k.size(2), queries + spec_.window - 1);
    k = k.narrow(2, k.size(2) - seen, seen);
    v = v.narrow(2, v.size(2) - seen, seen);
  }
  const int64_t keys = k.size(2);
  const bool causal = !windowed && queries == keys && queries > 1;
  at::Tensor seen;
  if (!causal && queries > 1) seen = seen_keys(queries, keys, spec_.window, q.device());
  return attend(context, q, k, v, seen, causal);
}

at::Tensor SdpaAttention::attend(const ForwardContext& context, const at::Tensor& q,
                                 const at::Tensor& k, const at::Tensor& v, const at::Tensor& seen,
                                 bool causal) const {
  at::Tensor out;
  if (context.training && spec_.dropout > 0) {
    // Dropout on the probabilities draws from the run's own random streams, so they have to exist.
    const at::Tensor kept =
        seen.defined() ? seen : seen_keys(q.size(2), k.size(2), spec_.window, q.device());
    const at::Tensor scores =
        at::matmul(q, repeat_heads(k, spec_.num_heads).transpose(2, 3)).mul(spec_.scale);
    const at::Tensor probabilities = at::softmax(
        scores.masked_fill(kept.logical_not(), -std::numeric_limits<double>::infinity()), -1);
    const auto drop = [p = spec_.dropout, seed = static_cast<int64_t>(context.seed),
                       stream = static_cast<int64_t>(stream_id(spec_.name + ".dropout")),
                       clock = element_clock(context, probabilities)](const at::Tensor& x) {
      return dropout(x, p, seed, stream, clock);
    };
    const at::Tensor dropped = drop(probabilities);
    out = at::matmul(dropped, repeat_heads(v, spec_.num_heads));
    free_until_backward(dropped, out, [drop, x = probabilities.detach()] { return drop(x); });
  } else if (q.is_meta()) {
    out = attention_shapes(q, k, v);
  } else {
    const std::optional<at::Tensor> mask = seen.defined() ? std::optional(seen) : std::nullopt;
    // Of CUDA's kernels that take a mask the one that stores no scores wants a key for each query.
    const bool grouped = spec_.num_heads != spec_.num_kv_heads, repeat = mask && q.is_cuda();
    out = at::scaled_dot_product_attention(q, repeat ? repeat_heads(k, spec_.num_heads) : k,
                                           repeat ? repeat_heads(v, spec_.num_heads) : v, mask, 0.0,
                                           causal, spec_.scale, grouped && !repeat);
  }
  return out.transpose(1, 2).reshape({q.size(0), q.size(2), spec_.num_heads * spec_.head_dim});
}

// Where the lengths are known each document is computed as if it were alone, which takes no mask
// and no more time than its own length. Dropout numbers the probabilities of whole windows.
at::Tensor SdpaAttention::forward_documents(const ForwardContext& context, const at::Tensor& qkv,
                                            const Documents& documents) {
  const int64_t B = qkv.size(0), T = qkv.size(1), H = spec_.num_heads, K = spec_.num_kv_heads,
                D = spec_.head_dim;
  const bool dropped = context.training && spec_.dropout > 0;
  if (!documents.lengths.empty() && !dropped) {
    std::vector<at::Tensor> out;
    for (const at::Tensor& document :
         qkv.reshape({1, B * T, qkv.size(2)}).split_with_sizes(documents.lengths, 1))
      out.push_back(forward_joint(context, spec_, document));
    return at::cat(out, 1).view({B, T, H * D});
  }
  const std::vector<at::Tensor> parts = qkv.split_with_sizes({H * D, K * D, K * D}, -1);
  const auto heads = [&](size_t i, int64_t count) {
    return parts[i].view({B, T, count, D}).transpose(1, 2);
  };
  const at::Tensor seen = seen_keys(T, T, spec_.window, qkv.device()).logical_and(documents.same());
  return attend(context, heads(0, H), heads(1, K), heads(2, K), seen, /*causal=*/false);
}

// The kernel reads all places; a window is a mask over them.
at::Tensor SdpaAttention::decode(const at::Tensor& q_BTHD, const at::Tensor& k, const at::Tensor& v,
                                 const at::Tensor& lengths) const {
  const at::Tensor out =
      outgrows_window(k.size(2))
          ? at::scaled_dot_product_attention(
                q_BTHD.transpose(1, 2), k, v, seen_keys_at(lengths, k.size(2), spec_.window), 0.0,
                /*is_causal=*/false, spec_.scale, spec_.num_heads != spec_.num_kv_heads)
          : decode_attention(q_BTHD.select(1, 0), k, v, lengths, spec_.scale);
  return out.reshape({q_BTHD.size(0), 1, spec_.num_heads * spec_.head_dim});
}

at::Tensor SdpaAttention::forward_joint(const ForwardContext& context, const AttentionSpec& spec,
                                        const at::Tensor& qkv) {
  const bool dropped = context.training && spec_.dropout > 0;
  if (qkv.is_cpu() && qkv.size(1) <= kShortSequence && !context.cache && !dropped &&
      !outgrows_window(qkv.size(1))) {
    return causal_attention(qkv, spec_.num_heads, spec_.num_kv_heads, spec_.scale);
  }
  return AttentionCore::forward_joint(context, spec, qkv);
}

std::unique_ptr<Projections> DenseFactory::projections(Build build,
                                                       const ProjectionSpec& spec) const {
  return std::make_unique<DenseProjections>(build, spec);
}

std::unique_ptr<AttentionCore> DenseFactory::attention(Build, const AttentionSpec& spec) const {
  return std::make_unique<SdpaAttention>(spec);
}

}  // namespace refract
