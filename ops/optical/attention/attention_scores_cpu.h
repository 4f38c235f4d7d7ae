// What both CPU passes of optical attention share: the codes of q and k, and the loop over the
// scores of a block of query rows.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/optical/attention/attention.h"
#include "ops/optical/attention/attention_rows.h"
#include "ops/optical/quantize/row_loops.h"

namespace refract::attention_cpu {

using attention_op::kKey;
using attention_op::kQuery;
using optical::Range;

constexpr int64_t kBlock = 64;  // query rows at a time

inline int64_t up_to_16(int64_t n) { return (n + 15) / 16 * 16; }

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

inline Range range_at(const at::Tensor& ranges, int role) {
  const float* r = ranges.const_data_ptr<float>() + 2 * role;
  return {r[0], r[1]};
}
inline void set_range(const at::Tensor& ranges, int role, Range r) {
  float* to = ranges.mutable_data_ptr<float>() + 2 * role;
  to[0] = r.lo;
  to[1] = r.hi;
}

// Codes of x [B, T, N, D] as [B N, T, D] and the sums of its rows, [B N, T].
struct Codes {
  at::Tensor codes, sums;
};
inline Codes encode(const at::Tensor& x, const optical::Quantizer& q) {
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
          simd::draw_noise(key, step, (stream << 38) | (static_cast<uint64_t>(pair) << 19),
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

}  // namespace refract::attention_cpu
