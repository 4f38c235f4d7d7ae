#include "transforms/optical/granular_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "model/attention_mask.h"
#include "ops/optical/attention/attention.h"
#include "transforms/media/observer.h"
#include "transforms/optical/granular_product.h"
#include "transforms/optical/optical_medium.h"
#include "transforms/optical/straight_quantize.h"

namespace refract {
namespace {

using attention_op::kKey;
using attention_op::kOutput;
using attention_op::kQuery;
using attention_op::kScore;
using attention_op::kValue;

// [B, T, H, D] -> [B, heads, T, D] in the type that sums are computed in; each head serves heads /
// H query heads.
at::Tensor heads_first(const at::Tensor& x, int64_t heads) {
  const at::Tensor y =
      x.transpose(1, 2).to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
  return y.size(1) == heads ? y : y.repeat_interleave(heads / y.size(1), 1);
}

// [T, S], true where query i, the last T of the S positions, doesn't see key j.
at::Tensor hidden_keys(const AttentionSpec& spec, int64_t queries, int64_t keys,
                       at::Device device) {
  return seen_keys(queries, keys, spec.window, device).logical_not_();
}

at::Tensor probabilities_of(const at::Tensor& scores, double scale, const at::Tensor& hidden) {
  return at::softmax(
      scores.mul(scale).masked_fill(hidden, -std::numeric_limits<double>::infinity()), -1);
}

// [B, H, T, D] -> [B, T, H * D].
at::Tensor tokens_first(const at::Tensor& x) { return x.transpose(1, 2).flatten(2); }

// float [K, D, 2] of v [B, S, K, D].
at::Tensor channel_ranges(const at::Tensor& v) {
  return at::stack({v.amin({0, 1}), v.amax({0, 1})}, -1).to(at::kFloat);
}

class GranularAttention : public AttentionCore {
 public:
  GranularAttention(Build build, const AttentionSpec& spec, OpticalParameters parameters)
      : spec_(spec), parameters_(std::move(parameters)) {
    ranges_ = declare_row_ranges(build, spec.name + ".ranges", {attention_op::kRoles});
    if (per_channel()) {
      v_range_ =
          declare_row_ranges(build, spec.name + ".v_range", {spec.num_kv_heads, spec.head_dim});
    }
    if (parameters_.q_learn) {
      clip_.emplace(build, spec.name + ".range_clip",
                    std::vector<int64_t>{attention_op::kRoles, 2});
    }
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& q_BTHD,
                     const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) override {
    const auto [k, v] = attended(context, spec_.layer, k_BTKD, v_BTKD);
    if (medium_observer()) {
      return observed_attention(parameters_, spec_, q_BTHD, k, v,
                                {ranges_->tensor, v_range_ ? v_range_->tensor : at::Tensor()});
    }
    const OpticalAttentionSettings settings(
        spec_.scale, false, std::nullopt,
        optical_settings(parameters_, context, {spec_.name + ".qk", spec_.name + ".av"}));
    if (!one_by_one(context)) return attend(q_BTHD, k, v, settings);
    std::vector<at::Tensor> outputs;
    for (int64_t i = 0; i < q_BTHD.size(0); ++i) {
      OpticalAttentionSettings own = settings;
      if (own.clock) own.clock = own.clock->add(at::tensor({int64_t{0}, i}, own.clock->options()));
      outputs.push_back(attend(q_BTHD.narrow(0, i, 1), k.narrow(0, i, 1), v.narrow(0, i, 1), own));
    }
    return at::cat(outputs);
  }

  bool follows_window() const override { return true; }

 private:
  // Whether sequences may be computed in turn, whose scores then stay in a core's cache: where none
  // of them enters a range that counts for another. A GPU wants all at once, and so does autograd.
  bool one_by_one(const ForwardContext& context) const {
    const bool rows = per_token() && per_channel() && parameters_.q_out_per == "token";
    if (!rows || context.training || !context.clock.defined() || !context.clock.is_cpu())
      return false;
    return v_set();
  }
  bool v_set() const {
    const at::Tensor first = v_range_->tensor.flatten(0, 1)[0];
    return first[0].item<float>() <= first[1].item<float>();
  }

  at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                    const OpticalAttentionSettings& settings) const {
    const at::Tensor hidden = hidden_keys(spec_, q.size(1), k.size(1), q.device());
    const at::Tensor scores = product_of_keys(q, k, hidden, settings);
    const at::Tensor p = probabilities_of(scores, spec_.scale, hidden);
    return tokens_first(product_of_values(q, k, v, p, settings)).to(q.scalar_type());
  }
  bool per_token() const { return parameters_.q_x_per == "token"; }
  bool per_channel() const { return parameters_.q_w_per == "channel"; }
  at::Tensor range(int role) const { return ranges_->tensor.select(0, role); }

  // Whether a range of the data at hand has a gradient: where operands have one.
  bool records() const { return parameters_.by_operands() && at::GradMode::is_enabled(); }
  static void move(const at::Tensor& range, const at::Tensor& seen, double smooth) {
    const at::NoGradGuard no_grad;
    move_ranges_(range, seen, smooth);
  }
  at::Tensor clipped(int role, const at::Tensor& range) const {
    return clip_ ? scaled_range(range, clip_->factor().select(0, role)) : range;
  }

  // The range of an operand, moved in training where it is one of the whole tensor.
  at::Tensor operand_range(int role, const at::Tensor& x, bool of_rows,
                           const OpticalAttentionSettings& settings) const {
    return clipped(role, seen_range(role, x, of_rows, settings));
  }
  at::Tensor seen_range(int role, const at::Tensor& x, bool of_rows,
                        const OpticalAttentionSettings& settings) const {
    const at::AutoGradMode mode(records());
    if (of_rows) return row_ranges(x);
    const at::Tensor seen = whole_range(x), used = set_or_seen(range(role).clone(), seen);
    if (settings.train) move(range(role), seen, settings.smooth);
    return used;
  }

  at::Tensor product(int out_role, const at::Tensor& a, const at::Tensor& b, GranularProduct& how,
                     const OpticalAttentionSettings& settings) const {
    how.levels = settings.levels;
    how.lut_min = settings.lut_min;
    how.operands = parameters_.by_operands();
    if (clip_) how.out_factor = clip_->factor().select(0, out_role);
    const bool whole = parameters_.q_out_per == "tensor";
    if (whole) how.out_range = range(out_role).clone();
    at::Tensor seen;
    at::Tensor y = granular_product(a, b, how, whole && settings.train ? &seen : nullptr);
    if (seen.defined()) move(range(out_role), seen, settings.smooth);
    return y;
  }

  // Scores [B, H, T, S] before scaling. A key is an output channel of this product.
  at::Tensor product_of_keys(const at::Tensor& q, const at::Tensor& k, const at::Tensor& hidden,
                             const OpticalAttentionSettings& settings) const {
    const at::Tensor a = heads_first(q, spec_.num_heads), b = heads_first(k, spec_.num_heads);
    GranularProduct how;
    how.a_range = operand_range(kQuery, a, per_token(), settings);
    how.b_range = operand_range(kKey, b, per_channel(), settings);
    how.hidden = hidden;
    how.xi = composite::optical_attention_score_xi(q, k, settings);
    return product(kScore, a, b, how, settings);
  }

  at::Tensor product_of_values(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               const at::Tensor& p,
                               const OpticalAttentionSettings& settings) const {
    const at::Tensor b = heads_first(v, spec_.num_heads).transpose(2, 3);
    GranularProduct how;
    how.a_range = probability_range(p);
    how.b_range = v_range_ ? value_ranges(v, settings) : operand_range(kValue, b, false, settings);
    how.xi = composite::optical_attention_output_xi(q, k, settings);
    if (how.xi.defined() && how.xi.dim() == 4) how.xi = how.xi.transpose(1, 2);
    return product(kOutput, p, b, how, settings);
  }

  at::Tensor probability_range(const at::Tensor& p) const {
    const at::NoGradGuard no_grad;
    if (!per_token()) return at::arange(2, ranges_->tensor.options());
    const at::Tensor top = p.amax(-1).to(at::kFloat);
    return at::stack({at::zeros_like(top), top}, -1);
  }

  // [H, D, 2], of each channel of a head.
  at::Tensor value_ranges(const at::Tensor& v, const OpticalAttentionSettings& settings) const {
    return clipped(kValue, seen_value_ranges(v, settings))
        .repeat_interleave(spec_.num_heads / spec_.num_kv_heads, 0);
  }
  at::Tensor seen_value_ranges(const at::Tensor& v,
                               const OpticalAttentionSettings& settings) const {
    const at::AutoGradMode mode(records());
    const at::Tensor seen = channel_ranges(v), used = set_or_seen(v_range_->tensor.clone(), seen);
    if (settings.train) move(v_range_->tensor, seen, settings.smooth);
    return used;
  }

  AttentionSpec spec_;
  OpticalParameters parameters_;
  BufferStore::Buffer *ranges_, *v_range_ = nullptr;
  std::optional<RangeFactor> clip_;  // of each role
};

}  // namespace

std::unique_ptr<AttentionCore> make_granular_attention(Build build, const AttentionSpec& spec,
                                                       const OpticalParameters& parameters) {
  return std::make_unique<GranularAttention>(build, spec, parameters);
}

std::pair<at::Tensor, at::Tensor> attended(const ForwardContext& context, int64_t layer,
                                           const at::Tensor& k_BTKD, const at::Tensor& v_BTKD) {
  if (!context.cache) return {k_BTKD, v_BTKD};
  const auto [k, v] = append_to_cache(*context.cache, layer, k_BTKD, v_BTKD);
  return {k.transpose(1, 2), v.transpose(1, 2)};
}

at::Tensor dense_attention(const AttentionSpec& spec, const at::Tensor& q, const at::Tensor& k,
                           const at::Tensor& v) {
  const at::Tensor scores =
      at::matmul(heads_first(q, spec.num_heads), heads_first(k, spec.num_heads).transpose(2, 3));
  const at::Tensor p =
      probabilities_of(scores, spec.scale, hidden_keys(spec, q.size(1), k.size(1), q.device()));
  return tokens_first(at::matmul(p, heads_first(v, spec.num_heads))).to(q.scalar_type());
}

at::Tensor observed_attention(const OpticalParameters& parameters, const AttentionSpec& spec,
                              const at::Tensor& q_BTHD, const at::Tensor& k_BSKD,
                              const at::Tensor& v_BSKD, const OpticalAttentionRanges& ranges) {
  const bool tokens = parameters.q_x_per == "token", channels = parameters.q_w_per == "channel";
  const bool outputs = parameters.q_out_per == "token";
  const auto show = [&](const char* role, int index, bool of_rows, const at::Tensor& values,
                        double lut_min) {
    const at::Tensor range = of_rows ? at::Tensor() : ranges.all.select(0, index);
    return observed_role(parameters, spec.name, role, values, range, lut_min);
  };
  const double floor = parameters.q_lut_min;
  const at::Tensor q = show("q", kQuery, tokens, heads_first(q_BTHD, spec.num_heads), 0);
  const at::Tensor k = show("k", kKey, channels, heads_first(k_BSKD, spec.num_heads), floor);
  const at::Tensor hidden = hidden_keys(spec, q.size(2), k.size(2), q.device());
  const at::Tensor all = at::matmul(q, k.transpose(2, 3));
  // What a query doesn't see takes the place of its own key's score.
  const at::Tensor own = all.diagonal(k.size(2) - q.size(2), 2, 3).unsqueeze(-1);
  const at::Tensor scores = show("scores", kScore, outputs, at::where(hidden, own, all), 0);
  const at::Tensor p = observed_role(parameters, spec.name, "probabilities",
                                     probabilities_of(scores, spec.scale, hidden), {}, 0,
                                     tokens ? at::Tensor() : at::arange(2, ranges.all.options()));
  at::Tensor v;
  if (channels) {  // [K * D, B * S]: a row is a channel
    const at::Tensor by_channel = heads_first(v_BSKD, spec.num_kv_heads).permute({1, 3, 0, 2});
    v = observed_role(parameters, spec.name, "v", by_channel.flatten(2).flatten(0, 1),
                      ranges.v.flatten(0, 1), floor)
            .view(by_channel.sizes())
            .permute({2, 0, 3, 1})
            .repeat_interleave(spec.num_heads / spec.num_kv_heads, 1);
  } else {
    v = show("v", kValue, false, heads_first(v_BSKD, spec.num_heads), floor);
  }
  return tokens_first(show("out", kOutput, outputs, at::matmul(p, v), 0)).to(q_BTHD.scalar_type());
}

}  // namespace refract
