// The end of optical attention's forward kernels: the range of the output, its noise and its
// quantization. A block B has the kernel's arguments `a`, `shared.constants`, its place (batch,
// head, offset, lane) and row(), the first of a thread's two neighbouring rows.
#pragma once
#include "ops/optical/attention/attention_tile.cuh"

namespace refract::attention {

// The noise of the output is drawn in blocks of four neighbours along D. A pair of threads holds
// such four of two rows: each draws one row's block, and they exchange halves.
__device__ __forceinline__ void output_noise(const OpticalAttentionArgs& a, uint64_t row_block,
                                             uint64_t next_row, int n, int lane, float (&xi)[4]) {
  const bool odd = (lane & 1) != 0;
  const uint64_t block =
      row_block + (odd ? next_row : 0) + static_cast<uint64_t>(2 * n + (lane % 4) / 2);
  const PhiloxBlock mine = noise_block(a.output_key, static_cast<uint64_t>(a.clock[0]), block);
  const uint32_t got0 = __shfl_xor_sync(0xffffffffu, odd ? mine.word[0] : mine.word[2], 1);
  const uint32_t got1 = __shfl_xor_sync(0xffffffffu, odd ? mine.word[1] : mine.word[3], 1);
  const uint32_t words[4] = {odd ? got0 : mine.word[0], odd ? got1 : mine.word[1],
                             odd ? mine.word[2] : got0, odd ? mine.word[3] : got1};
#pragma unroll
  for (int i = 0; i < 4; ++i) xi[i] = a.one_noise ? a.shared_noise : optical::noise_of(words[i]);
}

// An output before its quantization is unit * (sum of probability levels times value codes) +
// residual * (sum of probability levels).
struct OutputForm {
  float unit, residual;
};
__device__ __forceinline__ OutputForm output_form(const Constants& c) {
  const float top = c.quantizer[kValue].top;
  return {c.unit[kValue] / top, c.coder[kValue].residual / top};
}

// acc: sums of probability levels times value codes; p: sums of probability levels.
template <class T, int D, class B>
__device__ __forceinline__ void write_output(const B& b, float (&acc)[D / 8][4],
                                             const float (&p)[2]) {
  const OpticalAttentionArgs& a = b.a;
  const optical::Quantizer oq = b.shared.constants.quantizer[kOutput];
  const auto [unit, residual] = output_form(b.shared.constants);
  const float add[2] = {p[0] * residual, p[1] * residual};
  const int row = b.row();
  const uint64_t sequence = static_cast<uint64_t>(a.clock[1]) + static_cast<uint64_t>(b.batch);
  const uint64_t position = (sequence << 20) + static_cast<uint64_t>(row + b.offset);
  const uint64_t row_block =
      (position * static_cast<uint64_t>(a.heads) + static_cast<uint64_t>(b.head)) * (D / 4);
  const uint64_t next_row = static_cast<uint64_t>(a.heads) * (D / 4);
  T* out = static_cast<T*>(a.out);
#pragma unroll
  for (int n = 0; n < D / 8; ++n) {
    float xi[4];
    output_noise(a, row_block, next_row, n, b.lane, xi);
    float y[4];
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const float x = fmaf(acc[n][c], unit, add[c / 2]);
      y[c] = optical::plain_value(oq, optical::noisy_level(oq, x, xi[c]));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (row + r >= a.queries) continue;
      const int64_t at =
          ((static_cast<int64_t>(b.batch) * a.queries + row + r) * a.heads + b.head) * D + 8 * n +
          2 * (b.lane % 4);
      *reinterpret_cast<uint32_t*>(out + at) = mma::pack<T>(y[2 * r], y[2 * r + 1]);
    }
  }
}

template <int D, class B>
__device__ __forceinline__ optical::Range output_seen(const B& b, const float (&acc)[D / 8][4],
                                                      const float (&p)[2]) {
  const auto [unit, residual] = output_form(b.shared.constants);
  optical::Range range = optical::unset_range();
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (b.row() + r >= b.a.queries) continue;
#pragma unroll
    for (int n = 0; n < D / 8; ++n) {
#pragma unroll
      for (int c = 2 * r; c < 2 * r + 2; ++c) {
        const float x = fmaf(acc[n][c], unit, p[r] * residual);
        range = {fminf(range.lo, x), fmaxf(range.hi, x)};
      }
    }
  }
  return warp_range(range);
}

}  // namespace refract::attention
