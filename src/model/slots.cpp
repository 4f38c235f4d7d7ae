#include "model/slots.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include "core/error.h"
#include "model/backward/remake.h"
#include "model/dense.h"
#include "ops/dense/activation/activation.h"

namespace refract {

at::Tensor element_clock(const ForwardContext& context, const at::Tensor& x) {
  const int64_t per_sequence = x.numel() / x.size(0);
  return at::stack({context.clock.select(0, 0), context.clock.select(0, 1).mul(per_sequence)});
}

namespace {

at::Tensor activated(const at::Tensor& y, const at::Tensor& bias, Activation activation) {
  const std::optional<at::Tensor> maybe_bias = bias.defined() ? std::optional(bias) : std::nullopt;
  switch (activation) {
    case Activation::kNone:
      return bias.defined() ? y.add(bias) : y;
    case Activation::kGelu:
      return bias_gelu(y, maybe_bias, false);
    case Activation::kGeluTanh:
      return bias_gelu(y, maybe_bias, true);
    case Activation::kSwiglu:
      return swiglu(y, maybe_bias);
  }
  throw std::logic_error("unknown activation");
}

at::Tensor without_graph(const at::Tensor& t) { return t.defined() ? t.detach() : t; }

}  // namespace

at::Tensor apply_epilogue(const at::Tensor& y, const at::Tensor& bias, Activation activation) {
  at::Tensor out = activated(y, bias, activation);
  if (activation != Activation::kNone && frees_cheap()) {
    can_remake(out, [y = without_graph(y), bias = without_graph(bias), activation] {
      return activated(y, bias, activation);
    });
  }
  return out;
}

ComposedProjections::ComposedProjections(Build build, const ProjectionSpec& spec,
                                         std::vector<std::unique_ptr<LinearLayer>> layers)
    : layers_(std::move(layers)), activation_(spec.activation), arena_(build.arena) {
  for (const LinearSpec& member : spec.members) {
    out_features_.push_back(member.out_features);
    biases_.push_back(member.bias ? build.arena.declare(bias_spec(member)) : nullptr);
    any_bias_ |= member.bias;
  }
}

at::Tensor ComposedProjections::forward(const ForwardContext& context, const at::Tensor& x) {
  std::vector<at::Tensor> outputs, biases;
  for (size_t i = 0; i < layers_.size(); ++i) {
    outputs.push_back(layers_[i]->forward(context, x));
    if (!any_bias_) continue;
    biases.push_back(biases_[i] ? arena_.leaf(biases_[i])
                                : at::zeros({out_features_[i]}, x.options()));
  }
  const at::Tensor y = outputs.size() == 1 ? outputs[0] : at::cat(outputs, -1);
  const at::Tensor bias = !any_bias_           ? at::Tensor()
                          : biases.size() == 1 ? biases[0]
                                               : at::cat(biases);
  return apply_epilogue(y, bias, activation_);
}

KvCache KvCache::rows(int64_t first, int64_t count) const {
  KvCache part;
  for (const at::Tensor& all : keys) part.keys.push_back(all.narrow(0, first, count));
  for (const at::Tensor& all : values) part.values.push_back(all.narrow(0, first, count));
  return part;
}

namespace {

// Writes x [B, 1, K, D] into place lengths[b] of each sequence of all [B, K, S, D].
void append_at_lengths(const at::Tensor& all, const at::Tensor& lengths, const at::Tensor& x) {
  const at::Tensor column = x.transpose(1, 2);
  all.scatter_(2, lengths.view({-1, 1, 1, 1}).expand(column.sizes()), column);
}

}  // namespace

at::Tensor AttentionCore::forward_joint(const ForwardContext& context, const AttentionSpec& spec,
                                        const at::Tensor& qkv) {
  const int64_t B = qkv.size(0), T = qkv.size(1), H = spec.num_heads, K = spec.num_kv_heads,
                D = spec.head_dim;
  const std::vector<at::Tensor> parts = qkv.split_with_sizes({H * D, K * D, K * D}, -1);
  return forward(context, parts[0].view({B, T, H, D}), parts[1].view({B, T, K, D}),
                 parts[2].view({B, T, K, D}));
}

std::pair<at::Tensor, at::Tensor> append_to_cache(KvCache& cache, int64_t layer,
                                                  const at::Tensor& k_BTKD,
                                                  const at::Tensor& v_BTKD) {
  const int64_t begin = cache.length, count = k_BTKD.size(1);
  at::Tensor &keys = cache.keys.at(layer), &values = cache.values.at(layer);
  if (cache.lengths.defined()) {
    append_at_lengths(keys, cache.lengths, k_BTKD);
    append_at_lengths(values, cache.lengths, v_BTKD);
    return {keys.narrow(2, 0, cache.attended), values.narrow(2, 0, cache.attended)};
  }
  if (begin + count > keys.size(2)) {
    fail("the KV cache holds {} tokens and {} more do not fit; ask for fewer tokens", begin, count);
  }
  keys.narrow(2, begin, count).copy_(k_BTKD.transpose(1, 2));
  values.narrow(2, begin, count).copy_(v_BTKD.transpose(1, 2));
  return {keys.narrow(2, 0, begin + count), values.narrow(2, 0, begin + count)};
}

}  // namespace refract
