#include "model/batched_decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_scaled_dot_product_flash_attention.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/zeros.h>

#include <map>
#include <set>
#include <stdexcept>

#include "core/error.h"
#include "model/rope.h"
#include "ops/common/op.h"
#include "ops/dense/activation/activation.h"
#include "ops/dense/attention/attention.h"
#include "ops/dense/attention/rope.h"
#include "ops/dense/norm/norm.h"
#include "ops/many/batched_cross_entropy.h"
#include "ops/many/batched_linear.h"
#include "ops/many/prefix_attention.h"
#include "ops/many/prefix_cross_entropy.h"
#include "ops/many/split.h"

namespace refract {
namespace {

// What LayerPlan::extras may hold here.
const std::set<std::string> kKnownExtras = {};

using Shapes = std::map<std::string, std::vector<int64_t>>;

void add_norm_shapes(const NormPlan& norm, Shapes& shapes) {
  shapes[norm.name + ".weight"] = {norm.width};
  if (!norm.rms) shapes[norm.name + ".bias"] = {norm.width};
}

// The parameters that BatchedDecoder reads.
Shapes read_parameters(const ModelPlan& plan) {
  Shapes shapes;
  shapes[plan.tokens.name] = {plan.tokens.rows, plan.tokens.width};
  if (plan.positions) shapes[plan.positions->name] = {plan.positions->rows, plan.positions->width};
  shapes[head_of(plan).name] = {head_of(plan).rows, head_of(plan).width};
  for (const LayerPlan& layer : plan.layers) {
    add_norm_shapes(layer.input_norm, shapes);
    add_norm_shapes(layer.post_attention_norm, shapes);
    for (const ProjectionSpec* group : projections_of(layer)) {
      for (const LinearSpec& member : group->members) {
        shapes[member.name + ".weight"] = {member.out_features, member.in_features};
        if (member.bias) shapes[member.name + ".bias"] = {member.out_features};
      }
    }
  }
  add_norm_shapes(plan.final_norm, shapes);
  return shapes;
}

// Below that a product is bound by memory, and splitting its operands costs more than it saves.
bool worth_splitting(int64_t in, int64_t out) {
  return in * out >= 32768 && (in >= 128 || out >= 8192);
}

// cuDNN, which torch would ask first, plans for each shape anew, at a tenth of a second each.
bool suits_flash_attention(const at::Tensor& q, const at::Tensor& k) {
  const bool half = q.scalar_type() == at::kHalf || q.scalar_type() == at::kBFloat16;
  return q.is_cuda() && half && q.size(1) == k.size(1) && q.size(3) % 8 == 0 && q.size(3) <= 256;
}

at::Tensor flash_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           bool causal, double scale) {
  return std::get<0>(at::_scaled_dot_product_flash_attention(q, k, v, 0.0, causal,
                                                             /*return_debug_mask=*/false, scale));
}

}  // namespace

std::string why_not_batched(Decoder& model) {
  if (model.document_token()) return "its documents are isolated (data.documents)";
  if (!model.buffers().all().empty())
    return fmt::format("it keeps a buffer, '{}'", model.buffers().all().front().name);
  const std::vector<std::string> extras = unknown_extras(model.plan(), kKnownExtras);
  if (!extras.empty())
    return fmt::format("its layers have {}, which is computed for one model at a time only",
                       fmt::join(extras, ", "));
  const Shapes read = read_parameters(model.plan());
  for (const Parameter& parameter : model.arena().parameters()) {
    const auto found = read.find(parameter.name);
    if (found == read.end() || found->second != parameter.shape)
      return fmt::format("its parameter '{}' is not part of a plain layer", parameter.name);
  }
  return "";
}

BatchedDecoder::BatchedDecoder(Decoder& model, const at::Tensor& parameters_AS, Products products)
    : model_(model),
      plan_(model.plan()),
      parameters_(parameters_AS),
      models_(parameters_AS.size(0)),
      dtype_(model.arena().compute().scalar_type()),
      split_(products == Products::kSplit && dtype_ == at::kFloat) {
  const at::NoGradGuard no_grad;
  if (products == Products::kHalf && dtype_ == at::kFloat) dtype_ = at::kHalf;
  for (const LayerPlan& plan : plan_.layers) {
    layers_.push_back(
        {&plan, to_compute(folded(plan.qkv, plan.input_norm)), to_compute(linear(plan.output)),
         to_compute(folded(plan.up, plan.post_attention_norm)), to_compute(linear(plan.down))});
  }
  const int64_t C = plan_.tokens.width;
  embedding_ = value(plan_.tokens.name).to(dtype_);
  if (plan_.positions) positions_ = value(plan_.positions->name).to(dtype_);
  head_ = plan_.head ? value(plan_.head->name).to(dtype_) : embedding_;
  split_head_ = split_ && worth_splitting(C, plan_.tokens.rows);
  if (split_head_) head_ = split_weight_bfloat16(head_);
  const NormPlan& last = plan_.final_norm;
  final_weight_ = value(last.name + ".weight").unsqueeze(1).to(dtype_);
  if (!last.rms) final_bias_ = value(last.name + ".bias").unsqueeze(1).to(dtype_);
  const auto options = parameters_.options().dtype(dtype_);
  unit_weight_ = at::ones({C}, options);
  zero_bias_ = at::zeros({C}, options);
  if (plan_.rotary) {
    const auto [cos, sin] = rope_tables(model.config());
    const at::ScalarType wide = dtype_ == at::kDouble ? at::kDouble : at::kFloat;
    cos_ = cos.to(parameters_.device(), wide);
    sin_ = sin.to(parameters_.device(), wide);
  }
  parameters_.reset();
}

at::Tensor BatchedDecoder::value(const std::string& name) const {
  const Parameter* parameter = model_.arena().find(name);
  if (!parameter) return {};
  std::vector<int64_t> shape = parameter->shape;
  shape[0] = parameter->padded_rows;
  shape.insert(shape.begin(), models_);
  return parameters_.narrow(1, parameter->offset, parameter->stored_numel()).view(shape);
}

BatchedDecoder::Linear BatchedDecoder::linear(const ProjectionSpec& spec) const {
  std::vector<at::Tensor> weights, biases;
  bool any_bias = false;
  for (const LinearSpec& member : spec.members) {
    weights.push_back(value(member.name + ".weight"));
    at::Tensor bias = value(member.name + ".bias");
    any_bias |= bias.defined();
    if (!bias.defined()) bias = at::zeros({models_, weights.back().size(1)}, parameters_.options());
    biases.push_back(bias);
  }
  Linear joint{weights.size() == 1 ? weights[0] : at::cat(weights, 1), {}};
  if (any_bias) joint.bias = at::cat(biases, 1).unsqueeze(1);
  return joint;
}

// W (g * n + b) + c = (W diag(g)) n + (W b + c) for the normalized n.
BatchedDecoder::Linear BatchedDecoder::folded(const ProjectionSpec& spec,
                                              const NormPlan& norm) const {
  Linear joint = linear(spec);
  const at::Tensor scale = value(norm.name + ".weight"), shift = value(norm.name + ".bias");
  if (shift.defined()) {
    const at::Tensor product = at::bmm(joint.weight, shift.unsqueeze(2)).transpose(1, 2);
    joint.bias = joint.bias.defined() ? joint.bias.add(product) : product;
  }
  joint.weight = joint.weight.mul(scale.unsqueeze(1));
  return joint;
}

BatchedDecoder::Linear BatchedDecoder::to_compute(Linear linear) const {
  linear.split = split_ && worth_splitting(linear.weight.size(2), linear.weight.size(1));
  linear.weight =
      linear.split ? split_weight_bfloat16(linear.weight) : linear.weight.to(dtype_).contiguous();
  if (linear.bias.defined()) linear.bias = linear.bias.to(dtype_);
  return linear;
}

at::Tensor BatchedDecoder::apply(const Linear& linear, const at::Tensor& x, bool gelu) {
  const bool splits = linear.split && x.scalar_type() == at::kFloat;
  return batched_linear(splits ? split_bfloat16(x) : x, linear.weight, optional_of(linear.bias),
                        linear.split, gelu);
}

at::Tensor BatchedDecoder::embed(const at::Tensor& tokens_NT) const {
  const int64_t N = tokens_NT.size(0), T = tokens_NT.size(1), C = plan_.tokens.width;
  const at::Tensor x = embedding_.index_select(1, tokens_NT.reshape({-1}));
  if (positions_.defined()) {
    x.view({models_, N, T, C}).add_(positions_.narrow(1, 0, T).unsqueeze(1));
  }
  return x;
}

at::Tensor BatchedDecoder::embed(const PrefixTree& tree) const {
  const at::Tensor x = embedding_.index_select(1, tree.tokens);
  if (positions_.defined()) x.add_(positions_.index_select(1, tree.depths));
  return x;
}

at::Tensor BatchedDecoder::mix_windows(const Layer& layer, const at::Tensor& joint,
                                       int64_t length) const {
  const AttentionSpec& spec = layer.plan->attention;
  const int64_t H = spec.num_heads, K = spec.num_kv_heads, D = spec.head_dim, T = length,
                A = joint.size(0), rows = joint.size(1), sequences = A * rows / T;
  at::Tensor qkv = joint.view({sequences, T, (H + 2 * K) * D});
  if (layer.plan->rotated_heads > 0) qkv = rope(qkv, cos_, sin_, 0, layer.plan->rotated_heads, D);
  if (qkv.is_cuda() && layer.output.split && has_cuda_split_attention(T, D))
    return split_causal_attention(qkv, H, K, spec.scale).view({A, rows, 3 * H * D});
  // In 16 bits longer sequences are better off with tensor cores.
  const bool short_enough = T <= 16 || qkv.scalar_type() == at::kFloat;
  if (qkv.is_cuda() && short_enough && has_cuda_attention(T, D))
    return causal_attention(qkv, H, K, spec.scale).view({A, rows, H * D});
  const std::vector<at::Tensor> parts = qkv.split_with_sizes({H * D, K * D, K * D}, -1);
  const auto heads = [&](const at::Tensor& part, int64_t count) {
    return part.view({sequences, T, count, D}).transpose(1, 2);
  };
  const at::Tensor q = heads(parts[0], H), k = heads(parts[1], K), v = heads(parts[2], K);
  const at::Tensor mixed = suits_flash_attention(q, k)
                               ? flash_attention(q, k, v, T > 1, spec.scale)
                               : at::scaled_dot_product_attention(q, k, v, std::nullopt, 0.0,
                                                                  /*is_causal=*/T > 1, spec.scale,
                                                                  /*enable_gqa=*/H != K);
  return mixed.transpose(1, 2).reshape({A, rows, H * D});
}

at::Tensor BatchedDecoder::mix_prefixes(const Layer& layer, const at::Tensor& joint,
                                        const PrefixTree& tree) const {
  const AttentionSpec& spec = layer.plan->attention;
  at::Tensor qkv = joint;
  if (layer.plan->rotated_heads > 0) {  // a node's angle is that of its depth, not of its row
    qkv = rope(qkv, cos_.index_select(0, tree.depths), sin_.index_select(0, tree.depths), 0,
               layer.plan->rotated_heads, spec.head_dim);
  }
  return prefix_attention(qkv, tree.depths, tree.levels, spec.num_heads, spec.num_kv_heads,
                          spec.scale);
}

at::Tensor BatchedDecoder::mlp(const Layer& layer, const at::Tensor& x) const {
  const Activation activation = layer.plan->up.activation;
  const bool gated = activation == Activation::kSwiglu, tanh = activation == Activation::kGeluTanh;
  const bool sixteen_bits = dtype_ == at::kHalf || dtype_ == at::kBFloat16;
  if (!gated && tanh && sixteen_bits) return apply(layer.down, apply(layer.up, x, /*gelu=*/true));
  const at::Tensor up = apply(layer.up, x);
  if (!gated && layer.down.split) {
    return batched_linear(split_gelu_bfloat16(up, tanh), layer.down.weight,
                          optional_of(layer.down.bias), /*wide=*/true, /*gelu=*/false);
  }
  return apply(layer.down, gated ? swiglu(up, std::nullopt) : bias_gelu(up, std::nullopt, tanh));
}

// Only the rows' normalization is left of each norm; the residual add rides in it.
at::Tensor BatchedDecoder::normed(const NormPlan& plan, const at::Tensor& branch,
                                  at::Tensor& stream, bool split) const {
  const auto no_bias = plan.rms ? std::nullopt : std::optional(zero_bias_);
  if (!branch.defined() && !split) return norm(stream, unit_weight_, no_bias, plan.eps, plan.rms);
  at::Tensor result, sum;
  if (split) {
    const bool first = !branch.defined();
    std::tie(result, sum) =
        split_norm_bfloat16(first ? stream : branch, first ? std::nullopt : optional_of(stream),
                            std::nullopt, std::nullopt, plan.eps, plan.rms);
  } else {
    std::tie(result, sum) = add_norm(branch, stream, unit_weight_, no_bias, plan.eps, plan.rms);
  }
  if (branch.defined()) stream = std::move(sum);
  return result;
}

at::Tensor BatchedDecoder::final_normed(const at::Tensor& branch, const at::Tensor& stream) const {
  const NormPlan& last = plan_.final_norm;
  if (split_head_) {
    return std::get<0>(split_norm_bfloat16(branch, stream, final_weight_, optional_of(final_bias_),
                                           last.eps, last.rms));
  }
  at::Tensor sum = stream;
  const at::Tensor rows = normed(last, branch, sum, /*split=*/false).mul_(final_weight_);
  return final_bias_.defined() ? rows.add_(final_bias_) : rows;
}

// Split rows for a split head.
at::Tensor BatchedDecoder::features(at::Tensor stream, const Mix& mix) const {
  at::Tensor branch;
  for (const Layer& layer : layers_) {
    const LayerPlan& plan = *layer.plan;
    const at::Tensor rows = normed(plan.input_norm, branch, stream, layer.qkv.split);
    branch = apply(layer.output, mix(layer, apply(layer.qkv, rows)));
    branch = mlp(layer, normed(plan.post_attention_norm, branch, stream, layer.up.split));
  }
  return final_normed(branch, stream);
}

BatchedDecoder::Loss BatchedDecoder::loss(const at::Tensor& tokens_NT,
                                          const at::Tensor& targets_NT) const {
  const at::NoGradGuard no_grad;
  const at::Tensor rows =
      features(embed(tokens_NT), [&](const Layer& layer, const at::Tensor& qkv) {
        return mix_windows(layer, qkv, tokens_NT.size(1));
      });
  const BatchedCrossEntropy loss = batched_linear_cross_entropy(
      rows, head_, targets_NT.reshape({-1}), plan_.tokens.rows, /*split=*/split_head_);
  return {loss.loss_sum, loss.num_correct};
}

BatchedDecoder::Loss BatchedDecoder::loss(const PrefixTree& tree) const {
  const at::NoGradGuard no_grad;
  if (split_) throw std::logic_error("prefix trees are for products that are not split");
  const at::Tensor rows = features(embed(tree), [&](const Layer& layer, const at::Tensor& qkv) {
    return mix_prefixes(layer, qkv, tree);
  });
  const BatchedCrossEntropy loss =
      prefix_cross_entropy(rows, head_, tree.rows, tree.targets, tree.counts, plan_.tokens.rows);
  return {loss.loss_sum, loss.num_correct};
}

}  // namespace refract
