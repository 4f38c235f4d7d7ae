// Optical attention in plain tensor arithmetic: the definition.
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/logsumexp.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>

#include <cmath>
#include <limits>
#include <numbers>

#include "ops/common/philox_tensor.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/quantize/quantize.h"

namespace refract::composite {
namespace {

using attention_op::kKey;
using attention_op::kOutput;
using attention_op::kQuery;
using attention_op::kScore;
using attention_op::kValue;

// [B, T, H, D] -> [B, H, T, D], in the type that sums are computed in.
at::Tensor heads_first(const at::Tensor& x) {
  return x.transpose(1, 2).to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

// [B, K, S, D] -> [B, H, S, D]: each head serves H / K query heads.
at::Tensor repeat_heads(const at::Tensor& x, int64_t heads) {
  const int64_t groups = heads / x.size(1);
  if (groups == 1) return x;
  return x.unsqueeze(2)
      .expand({-1, -1, groups, -1, -1})
      .reshape({x.size(0), heads, x.size(2), x.size(3)});
}
at::Tensor sum_groups(const at::Tensor& x, int64_t kv_heads) {
  return x.reshape({x.size(0), kv_heads, -1, x.size(2), x.size(3)}).sum(2);
}

at::Tensor hidden(const at::Tensor& scores) {
  const int64_t queries = scores.size(2), keys = scores.size(3);
  return at::ones({queries, keys}, scores.options().dtype(at::kBool)).triu(keys - queries + 1);
}

// What the scores that are seen range over; their number is known beforehand.
at::Tensor seen_scores(const at::Tensor& scores, const OpticalAttentionSettings& settings) {
  const double inf = std::numeric_limits<double>::infinity();
  const at::Tensor mask = hidden(scores), low = scores.masked_fill(mask, inf);
  at::Tensor seen;
  if (settings.quantiles.empty()) {
    seen = at::stack({low.min(), scores.masked_fill(mask, -inf).max()}).to(at::kFloat);
  } else {
    const int64_t queries = scores.size(2), keys = scores.size(3);
    const int64_t count = scores.size(0) * scores.size(1) *
                          (queries * (keys - queries) + queries * (queries + 1) / 2);
    seen =
        optical_seen(std::get<0>(at::sort(low.flatten())).narrow(0, 0, count), settings.quantiles);
  }
  return settings.scaled_score_range ? seen.mul(static_cast<float>(settings.scale)) : seen;
}

at::Tensor quantized(const at::Tensor& x, const at::Tensor& range, int64_t levels, double lut_min) {
  return optical_values(optical_levels(x, range, levels, {}), range, levels, lut_min);
}

// From levels to exponents of e, up to a constant per row: -inf where a key is not seen.
at::Tensor exponents(const at::Tensor& level, const at::Tensor& used,
                     const OpticalAttentionSettings& settings) {
  const at::Tensor range = used.select(0, kScore).to(level.scalar_type());
  const at::Tensor step =
      range.select(0, 1).sub(range.select(0, 0)).div(static_cast<double>(settings.levels - 1));
  return level.mul(step.mul(settings.scale))
      .masked_fill(hidden(level), -std::numeric_limits<double>::infinity());
}

// The unquantized scores [B, H, T, S] of quantized operands.
at::Tensor products(const at::Tensor& q, const at::Tensor& k, const at::Tensor& used,
                    const OpticalAttentionSettings& settings) {
  const at::Tensor a = quantized(heads_first(q), used.select(0, kQuery), settings.levels, 0.0);
  const at::Tensor b =
      quantized(heads_first(k), used.select(0, kKey), settings.levels, settings.lut_min);
  return at::matmul(a, repeat_heads(b, q.size(2)).transpose(2, 3));
}

// The words [.., 4] of `block`.
at::Tensor words_of(const OpticalAttentionSettings& settings, size_t stream, const at::Tensor& step,
                    const at::Tensor& block) {
  const PhiloxKey key = philox_key(static_cast<uint64_t>(settings.seed),
                                   static_cast<uint64_t>(settings.streams.at(stream)));
  return philox_words(key, step, block, kNoiseRounds);
}

// Whether all elements of a product draw one number, or none does.
bool is_shared(const OpticalAttentionSettings& settings) {
  return settings.call_noise.has_value() || settings.shared_noise.has_value() || !settings.noise;
}

// Of the scores (0) or the output (1).
at::Tensor shared_xi(const at::Tensor& like, const OpticalAttentionSettings& settings,
                     int64_t product) {
  if (settings.call_noise.has_value()) return settings.call_noise->select(0, product);
  if (!settings.shared_noise.has_value()) return {};
  return at::full({}, *settings.shared_noise, like.options().dtype(at::kFloat));
}

at::Tensor sequences(const at::Tensor& clock, int64_t batch) {
  return at::arange(batch, clock.options()).add(clock.select(0, 1));
}

// Clamps what a call saw by what it quantized with.
at::Tensor clipped(const at::Tensor& seen, const at::Tensor& used) {
  return seen.clamp(used.select(0, 0), used.select(0, 1));
}

}  // namespace

at::Tensor optical_attention_score_xi(const at::Tensor& q, const at::Tensor& k,
                                      const OpticalAttentionSettings& settings) {
  if (is_shared(settings)) return shared_xi(q, settings, 0);
  const int64_t batch = q.size(0), queries = q.size(1), heads = q.size(2), keys = k.size(1);
  const at::Tensor clock = attention_op::clock_of(settings, q);
  const int64_t first = keys - queries, first_pair = first / 2;
  const int64_t row_pairs = (keys - 1) / 2 - first_pair + 1, groups = (keys + 15) / 16;
  const at::Tensor head = sequences(clock, batch)
                              .mul(heads)
                              .view({batch, 1, 1, 1})
                              .add(at::arange(heads, clock.options()).view({1, heads, 1, 1}));
  const at::Tensor row =
      at::arange(first_pair, first_pair + row_pairs, clock.options()).view({1, 1, row_pairs, 1});
  const at::Tensor column = at::arange(4 * groups, clock.options());
  const at::Tensor block = head.bitwise_left_shift(38).add(row.bitwise_left_shift(19)).add(column);
  const at::Tensor words = words_of(settings, 0, clock.select(0, 0), block);
  // [.., row pair, 16 keys, two of each 8, row, key of the two, half] in the order of rows and keys
  const at::Tensor halves =
      at::stack({words.bitwise_and(0xffff), words.bitwise_right_shift(16)}, -1)
          .view({batch, heads, row_pairs, groups, 4, 2, 2, 2})
          .permute({0, 1, 2, 5, 3, 7, 4, 6})
          .reshape({batch, heads, 2 * row_pairs, 16 * groups});
  return halves.narrow(2, first % 2, queries)
      .narrow(3, 0, keys)
      .to(at::kFloat)
      .add(0.5)
      .mul(1.0 / 65536)
      .sub(0.5);
}

at::Tensor optical_attention_output_xi(const at::Tensor& q, const at::Tensor& k,
                                       const OpticalAttentionSettings& settings) {
  if (is_shared(settings)) return shared_xi(q, settings, 1);
  const int64_t batch = q.size(0), queries = q.size(1), per_token = q.size(2) * q.size(3);
  const at::Tensor clock = attention_op::clock_of(settings, q);
  const at::Tensor token = sequences(clock, batch)
                               .bitwise_left_shift(20)
                               .view({batch, 1})
                               .add(at::arange(k.size(1) - queries, k.size(1), clock.options()));
  const at::Tensor index =
      token.mul(per_token).unsqueeze(-1).add(at::arange(per_token, clock.options()));
  const at::Tensor words = words_of(settings, 1, clock.select(0, 0), index.bitwise_right_shift(2))
                               .gather(-1, index.bitwise_and(3).unsqueeze(-1))
                               .view(q.sizes());
  return philox_uniforms_of(words).sub(0.5);
}

OpticalAttentionResult optical_attention_forward(const OpticalAttentionForwardInputs& in) {
  const at::Tensor &q = in.q, &k = in.k, &v = in.v, &ranges = in.ranges;
  const OpticalAttentionSettings& settings = in.settings;
  attention_op::check(in);
  const auto effective = [&](int role, const at::Tensor& seen) {
    return optical_effective(ranges.select(0, role), seen);
  };
  if (q.numel() == 0) {
    return {at::empty(q.sizes(), q.options()),
            at::empty({q.size(0), q.size(2), q.size(1)}, heads_first(q).options()), ranges.clone(),
            attention_op::mean_like(q, in.with_mean)};
  }
  at::Tensor seen[attention_op::kRoles];
  seen[kQuery] = optical_seen(q, settings.quantiles);
  seen[kKey] = optical_seen(k, settings.quantiles);
  seen[kValue] = optical_seen(v, settings.quantiles);
  at::Tensor used = ranges.clone();
  for (const int role : {kQuery, kKey, kValue}) {
    used.select(0, role).copy_(effective(role, seen[role]));
  }
  const at::Tensor scores = products(q, k, used, settings);
  seen[kScore] = seen_scores(scores, settings);
  used.select(0, kScore).copy_(effective(kScore, seen[kScore]));
  const at::Tensor level = optical_levels(scores, used.select(0, kScore), settings.levels,
                                          optical_attention_score_xi(q, k, settings));
  const at::Tensor exponent = exponents(level, used, settings);
  const at::Tensor log_sum = at::logsumexp(exponent, -1);
  // [0, 1]; a copy from the host could not be captured.
  const at::Tensor unit_range = at::arange(2, ranges.options());
  const at::Tensor p =
      quantized(exponent.sub(log_sum.unsqueeze(-1)).exp(), unit_range, settings.levels, 0.0);
  const at::Tensor values =
      quantized(heads_first(v), used.select(0, kValue), settings.levels, settings.lut_min);
  const at::Tensor y = at::matmul(p, repeat_heads(values, q.size(2))).transpose(1, 2);
  seen[kOutput] = optical_seen(y, settings.quantiles);
  used.select(0, kOutput).copy_(effective(kOutput, seen[kOutput]));
  const at::Tensor range = used.select(0, kOutput);
  const at::Tensor out = optical_values(
      optical_levels(y, range, settings.levels, optical_attention_output_xi(q, k, settings)), range,
      settings.levels, 0.0);
  if (settings.train) {
    if (settings.clipped_ranges) {
      for (const int role : {kScore, kOutput}) {
        seen[role] = clipped(seen[role], used.select(0, role));
      }
    }
    for (int role = 0; role < attention_op::kRoles; ++role) {
      const at::Tensor range_of_role = ranges.select(0, role);
      optical_move_(range_of_role, range_of_role, seen[role], settings.smooth);
    }
  }
  return {out.to(q.scalar_type()).contiguous(), log_sum.mul(-std::numbers::log2e), used,
          attention_op::mean_like(q, in.with_mean)};
}

OpticalAttentionGradients optical_attention_backward(const OpticalAttentionBackwardInputs& in) {
  const at::Tensor &q = in.q, &k = in.k, &used = in.used;
  const OpticalAttentionSettings& settings = in.settings;
  const at::Tensor level =
      optical_levels(products(q, k, used, settings), used.select(0, kScore), settings.levels,
                     optical_attention_score_xi(q, k, settings));
  const at::Tensor exponent = exponents(level, used, settings);
  const at::Tensor p = exponent.sub(at::logsumexp(exponent, {-1}, true)).exp();
  const int64_t heads = q.size(2), kv_heads = k.size(2);
  const at::Tensor grad = heads_first(in.grad_out);
  const at::Tensor wide_q = heads_first(q), wide_k = repeat_heads(heads_first(k), heads);
  const at::Tensor grad_p =
      at::matmul(grad, repeat_heads(heads_first(in.v), heads).transpose(2, 3));
  const at::Tensor grad_s = p.mul(grad_p.sub(p.mul(grad_p).sum({-1}, true))).mul(settings.scale);
  const auto back = [&](const at::Tensor& x) {
    return x.transpose(1, 2).to(q.scalar_type()).contiguous();
  };
  return {back(at::matmul(grad_s, wide_k)),
          back(sum_groups(at::matmul(grad_s.transpose(2, 3), wide_q), kv_heads)),
          back(sum_groups(at::matmul(p.transpose(2, 3), grad), kv_heads))};
}

}  // namespace refract::composite
