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

#include <algorithm>
#include <mutex>
#include <vector>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/attention/attention_rows.h"
#include "ops/optical/attention/attention_scores_cpu.h"
#include "ops/optical/quantize/row_loops.h"

namespace refract {
namespace {

using attention_cpu::Codes;
using attention_cpu::encode;
using attention_cpu::range_at;
using attention_cpu::Scores;
using attention_cpu::set_range;
using attention_cpu::Shape;
using attention_op::kKey;
using attention_op::kOutput;
using attention_op::kQuery;
using attention_op::kRoles;
using attention_op::kScore;
using attention_op::kValue;
using optical::Range;

bool has_kernel(const at::Tensor& q, const OpticalAttentionSettings& s) {
  return q.scalar_type() != at::kDouble && s.quantiles.empty() && !s.call_noise.has_value() &&
         s.levels <= optical::kMaxExactLevels && q.numel() > 0;
}

Range seen_in_tensor(const at::Tensor& x) {
  const auto [lo, hi] = at::aminmax(x);
  return {lo.to(at::kFloat).item<float>(), hi.to(at::kFloat).item<float>()};
}

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
        simd::draw_noise(key, scores.step, first >> 2, words.data(), (skip + width + 3) / 4);
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

OpticalAttentionResult forward_cpu(const OpticalAttentionForwardInputs& in) {
  const at::Tensor &q = in.q, &k = in.k, &v = in.v;
  const OpticalAttentionSettings& s = in.settings;
  if (!has_kernel(q, s)) {
    return composite::optical_attention_forward(in);
  }
  attention_op::check(in);
  const at::Tensor mean = attention_op::mean_like(q, in.with_mean);
  Range seen[kRoles], before[kRoles];
  at::Tensor used = in.ranges.clone();
  for (int role = 0; role < kRoles; ++role) before[role] = range_at(in.ranges, role);
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
    set_range(in.ranges, role, optical::moved(before[role], r, static_cast<float>(s.smooth)));
  }
  return {out, f.normalizer.view({q.size(0), q.size(2), q.size(1)}), used, mean};
}

OpticalAttentionGradients backward_cpu(const OpticalAttentionBackwardInputs& in) {
  const at::Tensor &q = in.q, &k = in.k, &v = in.v;
  const OpticalAttentionSettings& s = in.settings;
  if (!has_kernel(q, s)) {
    return composite::optical_attention_backward(in);
  }
  const Scores scores(q, k, in.used, s);
  const Shape& shape = scores.shape;
  const int64_t heads = shape.batch * shape.heads;
  const optical::Quantizer quantizer =
      optical::quantizer(range_at(in.used, kScore), static_cast<int>(s.levels), 0.0f);
  const float score_scale = static_cast<float>(s.scale), exponent = score_scale * quantizer.step;
  const auto plain = [](const at::Tensor& x) {  // [B, T, N, D] -> float [B N, T, D]
    return x.transpose(1, 2).to(at::kFloat).reshape({-1, x.size(1), x.size(3)});
  };
  const at::Tensor wide_q = plain(q), wide_k = plain(k), wide_v = plain(v),
                   grad = plain(in.grad_out);
  at::Tensor grad_q = at::empty_like(wide_q), grad_k = at::zeros_like(wide_k),
             grad_v = at::zeros_like(wide_v);
  const at::Tensor normalizers = in.normalizer.contiguous();
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

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, optical_attention_forward).cpu<forward_cpu>();
  forms(m, optical_attention_backward).cpu<backward_cpu>();
}

}  // namespace refract
