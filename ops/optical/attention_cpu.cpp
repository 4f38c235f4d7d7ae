// CPU kernels of optical attention. A block of query rows of every head is multiplied with the keys
// that any of them sees (at::bmm, on the whole-numbered codes, so that sums are exact in any
// order); the loops over its scores are ours. No score is kept past its block: the backward pass
// computes it again. float64, quantiles and level numbers that codes don't hold exactly go to the
// composite form.
#include <ATen/Parallel.h>
#include <ATen/ops/aminmax.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <vector>

#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/optical/attention_dispatch.h"
#include "ops/optical/attention_rows.h"
#include "ops/optical/loops.h"

namespace refract {
namespace {

using attention_op::kKey;
using attention_op::kOutput;
using attention_op::kQuery;
using attention_op::kRoles;
using attention_op::kScore;
using attention_op::kValue;
using optical::Range;

constexpr int64_t kBlock = 64;  // query rows at a time

int64_t up_to_16(int64_t n) { return (n + 15) / 16 * 16; }

struct Shape {
  int64_t batch, queries, keys, heads, kv_heads, width;
  explicit Shape(const at::Tensor& q, const at::Tensor& k)
      : batch(q.size(0)),
        queries(q.size(1)),
        keys(k.size(1)),
        heads(q.size(2)),
        kv_heads(k.size(2)),
        width(q.size(3)) {}
  int64_t first() const { return keys - queries; }  // the token that query 0 is
  int64_t per_group() const { return heads / kv_heads; }
};

bool has_kernel(const at::Tensor& q, const OpticalAttentionSettings& s) {
  return q.scalar_type() != at::kDouble && s.quantiles.empty() &&
         s.levels <= optical::kMaxExactLevels && q.numel() > 0;
}

Range range_at(const at::Tensor& ranges, int role) {
  const float* r = ranges.const_data_ptr<float>() + 2 * role;
  return {r[0], r[1]};
}
void set_range(const at::Tensor& ranges, int role, Range r) {
  float* to = ranges.mutable_data_ptr<float>() + 2 * role;
  to[0] = r.lo;
  to[1] = r.hi;
}

Range seen_in_tensor(const at::Tensor& x) {
  const auto [lo, hi] = at::aminmax(x);
  return {lo.to(at::kFloat).item<float>(), hi.to(at::kFloat).item<float>()};
}

// Codes of x [B, T, N, D] as [B N, T, D] and the sums of its rows, [B N, T].
struct Codes {
  at::Tensor codes, sums;
};
Codes encode(const at::Tensor& x, const optical::Quantizer& q) {
  const int64_t batch = x.size(0), tokens = x.size(1), heads = x.size(2), width = x.size(3);
  const auto options = x.options().dtype(at::kFloat);
  Codes out{at::empty({batch * heads, tokens, width}, options),
            at::empty({batch * heads, tokens}, options)};
  const optical::EncodeRow a{q, optical::coder(q)};
  float* codes = out.codes.mutable_data_ptr<float>();
  float* sums = out.sums.mutable_data_ptr<float>();
  const at::Tensor rows = x.stride(3) == 1 ? x : x.contiguous();
  dispatch_floating(x.scalar_type(), "optical_attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      const T* data = rows.const_data_ptr<T>();
      at::parallel_for(0, batch * heads * tokens, 256, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t outer = i / tokens, token = i % tokens;
          const T* from = data + outer / heads * rows.stride(0) + token * rows.stride(1) +
                          outer % heads * rows.stride(2);
          optical::encode_row(from, codes + i * width, sums + i, width, a);
        }
      });
    }
  });
  return out;
}

// What both passes need to compute the scores of a block.
struct Scores {
  const Shape shape;
  const OpticalAttentionSettings& settings;
  Codes q, k;
  at::Tensor columns;  // [B K, S], what a key adds to its scores
  optical::Mix mix;
  PhiloxKey key;
  uint64_t step, first_sequence;
  bool noise;
  float shared;

  Scores(const at::Tensor& q_BTHD, const at::Tensor& k_BSKD, const at::Tensor& used,
         const OpticalAttentionSettings& s)
      : shape(q_BTHD, k_BSKD), settings(s) {
    const auto levels = static_cast<int>(s.levels);
    const optical::Quantizer qq = optical::quantizer(range_at(used, kQuery), levels, 0.0f);
    const optical::Quantizer qk =
        optical::quantizer(range_at(used, kKey), levels, static_cast<float>(s.lut_min));
    q = encode(q_BTHD, qq);
    k = encode(k_BSKD, qk);
    mix = optical::mix(qq, qk, static_cast<float>(shape.width));
    columns = k.sums.mul(mix.column_gain);
    noise = s.noise && !s.shared_noise.has_value();
    shared = static_cast<float>(s.shared_noise.value_or(0.0));
    key = philox_key(static_cast<uint64_t>(s.seed),
                     static_cast<uint64_t>(s.streams.empty() ? 0 : s.streams[0]));
    const at::Tensor clock = attention_op::clock_of(s, q_BTHD).contiguous();
    step = static_cast<uint64_t>(clock.const_data_ptr<int64_t>()[0]);
    first_sequence = static_cast<uint64_t>(clock.const_data_ptr<int64_t>()[1]);
  }

  // Rows [begin, begin + rows) of x [B H, T, D] as [B K, H / K * rows, D].
  at::Tensor block(const at::Tensor& x, int64_t begin, int64_t rows) const {
    return x.narrow(1, begin, rows)
        .reshape({shape.batch * shape.kv_heads, shape.per_group() * rows, shape.width});
  }
  int64_t keys_seen(int64_t row) const { return row + shape.first() + 1; }

  // Products of codes [B K, H / K * rows, keys that the block sees].
  at::Tensor products(int64_t begin, int64_t rows) const {
    const at::Tensor seen = k.codes.narrow(1, 0, keys_seen(begin + rows - 1));
    return at::bmm(block(q.codes, begin, rows), seen.transpose(1, 2));
  }

  optical::ScoreRow row_of(const optical::Quantizer& quantizer, int64_t head, int64_t row) const {
    const float sum = q.sums.const_data_ptr<float>()[head * shape.queries + row];
    return {quantizer, mix.gain, sum * mix.row_gain + mix.constant};
  }

  // Calls f(head of all, row, index of its row in the block's products, noise of its keys or null)
  // for every row of the block, on several threads, two rows of a Philox patch at a time.
  template <class F>
  void for_rows(int64_t begin, int64_t rows, F&& f) const {
    const int64_t first = shape.first(), pair0 = (begin + first) / 2;
    const int64_t pairs = (begin + rows - 1 + first) / 2 - pair0 + 1;
    const int64_t heads = shape.batch * shape.heads, most = keys_seen(begin + rows - 1);
    at::parallel_for(0, heads * pairs, 8, [&](int64_t from, int64_t to) {
      std::vector<uint32_t> words(noise ? up_to_16(most) : 0);
      std::vector<float> xi(words.size());
      for (int64_t item = from; item < to; ++item) {
        const int64_t head = item / pairs, pair = pair0 + item % pairs;
        if (noise) {
          const uint64_t sequence = first_sequence + static_cast<uint64_t>(head / shape.heads);
          const uint64_t stream = sequence * static_cast<uint64_t>(shape.heads) +
                                  static_cast<uint64_t>(head % shape.heads);
          simd::draw_philox(key, step, (stream << 38) | (static_cast<uint64_t>(pair) << 19),
                            words.data(), up_to_16(std::min(2 * pair + 2, most)) / 4);
        }
        for (int odd = 0; odd < 2; ++odd) {
          const int64_t row = 2 * pair + odd - first;
          if (row < begin || row >= begin + rows) continue;
          if (noise) {
            optical::patch_noise(words.data(), odd, xi.data(), up_to_16(keys_seen(row)));
          }
          f(head, row, head * rows + row - begin, noise ? xi.data() : nullptr);
        }
      }
    });
  }
  const float* columns_of(int64_t head) const {
    return columns.const_data_ptr<float>() + head / shape.per_group() * shape.keys;
  }
  // Calls f(begin, rows) for blocks of rows.
  template <class F>
  void for_blocks(F&& f) const {
    for (int64_t begin = 0; begin < shape.queries; begin += kBlock) {
      f(begin, std::min(kBlock, shape.queries - begin));
    }
  }
};

// A range that several threads add to.
struct SharedRange {
  Range range = optical::unset_range();
  std::mutex mutex;
  void include(Range r) {
    const std::lock_guard<std::mutex> lock(mutex);
    range = optical::merge(range, r);
  }
};

Range measure_scores(const Scores& scores) {
  SharedRange seen;
  scores.for_blocks([&](int64_t begin, int64_t rows) {
    const at::Tensor x = scores.products(begin, rows);
    const float* data = x.const_data_ptr<float>();
    const int64_t width = x.size(2);
    scores.for_rows(begin, rows, [&](int64_t head, int64_t row, int64_t at, const float*) {
      seen.include(optical::seen_in_scores(data + at * width, scores.columns_of(head),
                                           scores.keys_seen(row), scores.row_of({}, head, row)));
    });
  });
  return seen.range;
}

// The forward pass up to the quantization of its output.
struct Forward {
  at::Tensor product;     // [B H, T, D], sums of probability levels times codes of v
  at::Tensor p_sums;      // [B H, T], sums of probability levels
  at::Tensor normalizer;  // [B H, T]
  Range seen;
};
Forward run_scores(const Scores& scores, const Codes& v, Range range) {
  const Shape& shape = scores.shape;
  const int64_t heads = shape.batch * shape.heads;
  const auto options = v.codes.options();
  Forward out{at::empty({heads, shape.queries, shape.width}, options),
              at::empty({heads, shape.queries}, options),
              at::empty({heads, shape.queries}, options), optical::unset_range()};
  const optical::Quantizer q =
      optical::quantizer(range, static_cast<int>(scores.settings.levels), 0.0f);
  const float exponent = static_cast<float>(scores.settings.scale) * q.step;
  SharedRange seen;
  float* p_sums = out.p_sums.mutable_data_ptr<float>();
  float* normalizer = out.normalizer.mutable_data_ptr<float>();
  scores.for_blocks([&](int64_t begin, int64_t rows) {
    at::Tensor x = scores.products(begin, rows);
    float* data = x.mutable_data_ptr<float>();
    const int64_t width = x.size(2);
    scores.for_rows(begin, rows, [&](int64_t head, int64_t row, int64_t at, const float* noise) {
      const int64_t n = scores.keys_seen(row), index = head * shape.queries + row;
      float* values = data + at * width;
      seen.include(optical::score_levels(values, scores.columns_of(head), noise, scores.shared, n,
                                         scores.row_of(q, head, row)));
      normalizer[index] = optical::probability_levels(values, exponent, q.top, p_sums + index, n);
      std::fill(values + n, values + width, 0.0f);
    });
    out.product.narrow(1, begin, rows)
        .copy_(at::bmm(x, v.codes.narrow(1, 0, width)).view({heads, rows, shape.width}));
  });
  out.seen = seen.range;
  return out;
}

struct OutputForm {
  optical::Coder coder;
  float gain, residual;  // value = gain product + residual (sum of probability levels)
  explicit OutputForm(const optical::Quantizer& v)
      : coder(optical::coder(v)),
        gain(v.step / coder.unit / v.top),
        residual(coder.residual / v.top) {}
};

Range measure_output(const Forward& f, const OutputForm& form) {
  const int64_t width = f.product.size(2), rows = f.p_sums.numel();
  const float* product = f.product.const_data_ptr<float>();
  const float* sums = f.p_sums.const_data_ptr<float>();
  const std::vector<float> zeros(width, 0.0f);
  Range seen = optical::unset_range();
  for (int64_t i = 0; i < rows; ++i) {
    seen = optical::merge(seen, optical::seen_in_product(product + i * width, zeros.data(), width,
                                                         form.gain, sums[i] * form.residual));
  }
  return seen;
}

template <class T>
void write_output(const Scores& scores, const Forward& f, const OutputForm& form, Range range,
                  const at::Tensor& out) {
  const Shape& shape = scores.shape;
  const int64_t width = shape.width;
  const OpticalAttentionSettings& s = scores.settings;
  const PhiloxKey key = philox_key(static_cast<uint64_t>(s.seed),
                                   static_cast<uint64_t>(s.streams.empty() ? 0 : s.streams[1]));
  const float* product = f.product.const_data_ptr<float>();
  const float* sums = f.p_sums.const_data_ptr<float>();
  T* y = out.mutable_data_ptr<T>();
  const optical::Quantizer q = optical::quantizer(range, static_cast<int>(s.levels), 0.0f);
  at::parallel_for(0, f.p_sums.numel(), 64, [&](int64_t begin, int64_t end) {
    std::vector<uint32_t> words(width + 8);
    for (int64_t i = begin; i < end; ++i) {
      const int64_t outer = i / shape.queries, row = i % shape.queries;
      const int64_t batch = outer / shape.heads, head = outer % shape.heads;
      const uint64_t sequence = scores.first_sequence + static_cast<uint64_t>(batch);
      const uint64_t token = (sequence << 20) + static_cast<uint64_t>(row + shape.first());
      const uint64_t first =
          (token * static_cast<uint64_t>(shape.heads) + static_cast<uint64_t>(head)) *
          static_cast<uint64_t>(width);
      const auto skip = static_cast<int64_t>(first & 3);
      if (scores.noise) {
        simd::draw_philox(key, scores.step, first >> 2, words.data(), (skip + width + 3) / 4);
      }
      T* to = y + ((batch * shape.queries + row) * shape.heads + head) * width;
      const float row_term = optical::mul(sums[i], form.residual);
      for (int64_t d = 0; d < width; ++d) {
        const float v = optical::add(optical::mul(form.gain, product[i * width + d]), row_term);
        const float xi = scores.noise ? optical::noise_of(words[skip + d]) : scores.shared;
        to[d] = static_cast<T>(optical::plain_value(q, optical::noisy_level(q, v, xi)));
      }
    }
  });
}

attention_op::ForwardResult forward_cpu(const at::Tensor& q, const at::Tensor& k,
                                        const at::Tensor& v, at::Tensor ranges,
                                        REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  const OpticalAttentionSettings s = REFRACT_ATTENTION_SETTINGS_PACK;
  if (!has_kernel(q, s)) {
    return attention_op::result_of(
        composite::optical_attention_forward(q, k, v, std::move(ranges), s));
  }
  attention_op::check(q, k, v, ranges, s);
  Range seen[kRoles], before[kRoles];
  at::Tensor used = ranges.clone();
  for (int role = 0; role < kRoles; ++role) before[role] = range_at(ranges, role);
  const auto use = [&](int role) {
    if (!optical::is_set(before[role])) set_range(used, role, seen[role]);
  };
  seen[kQuery] = seen_in_tensor(q);
  seen[kKey] = seen_in_tensor(k);
  seen[kValue] = seen_in_tensor(v);
  for (const int role : {kQuery, kKey, kValue}) use(role);
  const Scores scores(q, k, used, s);
  const optical::Quantizer qv = optical::quantizer(
      range_at(used, kValue), static_cast<int>(s.levels), static_cast<float>(s.lut_min));
  const Codes codes_v = encode(v, qv);
  const auto score_range = [&](Range r) -> Range {
    const float scale = s.scaled_score_range ? static_cast<float>(s.scale) : 1.0f;
    return {r.lo * scale, r.hi * scale};
  };
  if (!optical::is_set(before[kScore])) {
    seen[kScore] = score_range(measure_scores(scores));
    use(kScore);
  }
  const Forward f = run_scores(scores, codes_v, range_at(used, kScore));
  seen[kScore] = score_range(f.seen);
  const OutputForm form(qv);
  seen[kOutput] = measure_output(f, form);
  use(kOutput);
  at::Tensor out = at::empty(q.sizes(), q.options().memory_format(at::MemoryFormat::Contiguous));
  dispatch_floating(q.scalar_type(), "optical_attention", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      write_output<T>(scores, f, form, range_at(used, kOutput), out);
    }
  });
  for (int role = 0; s.train && role < kRoles; ++role) {
    Range r = seen[role];
    if (s.clipped_ranges && (role == kScore || role == kOutput)) {
      const Range by = range_at(used, role);
      r = {std::clamp(r.lo, by.lo, by.hi), std::clamp(r.hi, by.lo, by.hi)};
    }
    set_range(ranges, role, optical::moved(before[role], r, static_cast<float>(s.smooth)));
  }
  return {out, f.normalizer.view({q.size(0), q.size(2), q.size(1)}), used};
}

attention_op::BackwardResult backward_cpu(const at::Tensor& grad_out, const at::Tensor& q,
                                          const at::Tensor& k, const at::Tensor& v,
                                          const at::Tensor& out, const at::Tensor& normalizer,
                                          const at::Tensor& used,
                                          REFRACT_ATTENTION_SETTINGS_PARAMETERS) {
  const OpticalAttentionSettings s = REFRACT_ATTENTION_SETTINGS_PACK;
  if (!has_kernel(q, s)) {
    return attention_op::result_of(
        composite::optical_attention_backward(grad_out, q, k, v, used, s));
  }
  static_cast<void>(out);
  const Scores scores(q, k, used, s);
  const Shape& shape = scores.shape;
  const int64_t heads = shape.batch * shape.heads;
  const optical::Quantizer quantizer =
      optical::quantizer(range_at(used, kScore), static_cast<int>(s.levels), 0.0f);
  const float score_scale = static_cast<float>(s.scale), exponent = score_scale * quantizer.step;
  const auto plain = [](const at::Tensor& x) {  // [B, T, N, D] -> float [B N, T, D]
    return x.transpose(1, 2).to(at::kFloat).reshape({-1, x.size(1), x.size(3)});
  };
  const at::Tensor wide_q = plain(q), wide_k = plain(k), wide_v = plain(v), grad = plain(grad_out);
  at::Tensor grad_q = at::empty_like(wide_q), grad_k = at::zeros_like(wide_k),
             grad_v = at::zeros_like(wide_v);
  const at::Tensor normalizers = normalizer.contiguous();
  const float* norm = normalizers.const_data_ptr<float>();
  scores.for_blocks([&](int64_t begin, int64_t rows) {
    at::Tensor x = scores.products(begin, rows);
    const int64_t width = x.size(2);
    const at::Tensor dy = scores.block(grad, begin, rows);
    at::Tensor g = at::bmm(dy, wide_v.narrow(1, 0, width).transpose(1, 2));
    float* px = x.mutable_data_ptr<float>();
    float* pg = g.mutable_data_ptr<float>();
    scores.for_rows(begin, rows, [&](int64_t head, int64_t row, int64_t at, const float* noise) {
      const int64_t n = scores.keys_seen(row);
      float *level = px + at * width, *dp = pg + at * width;
      optical::score_levels(level, scores.columns_of(head), noise, scores.shared, n,
                            scores.row_of(quantizer, head, row));
      optical::score_gradients(level, dp, exponent, norm[head * shape.queries + row], score_scale,
                               n);
      std::fill(level + n, level + width, 0.0f);
      std::fill(dp + n, dp + width, 0.0f);
    });
    grad_q.narrow(1, begin, rows)
        .copy_(at::bmm(g, wide_k.narrow(1, 0, width)).view({heads, rows, shape.width}));
    grad_k.narrow(1, 0, width).add_(at::bmm(g.transpose(1, 2), scores.block(wide_q, begin, rows)));
    grad_v.narrow(1, 0, width).add_(at::bmm(x.transpose(1, 2), dy));
  });
  const auto back = [&](const at::Tensor& x, const at::Tensor& like) {
    return x.view({like.size(0), like.size(2), like.size(1), like.size(3)})
        .transpose(1, 2)
        .to(like.scalar_type())
        .contiguous();
  };
  return {back(grad_q, q), back(grad_k, k), back(grad_v, v)};
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CPU, m) {
  m.impl("optical_attention_forward", forward_cpu);
  m.impl("optical_attention_backward", backward_cpu);
}

}  // namespace refract
