// Optical attention, forward. A block has 64 query rows of one head, a warp 16 of them, and no
// score leaves the registers: a first pass over the keys finds each row's maximum and sum of the
// noisy quantized scores; a second computes the same scores, draws the same noise again, quantizes
// the probabilities and multiplies the values.
#include "ops/optical/attention/attention_block.cuh"
#include "ops/optical/attention/attention_output.cuh"

namespace refract::attention {
namespace {

// Which of the call's ranges a launch measures; kAll also writes the results.
enum class Pass { kScoreRange, kOutputRange, kAll };

// What a call quantizes with must not move while it runs: a range that was not set is measured by
// its own pass alone.
template <Pass kPass>
__device__ __forceinline__ bool measures(const OpticalAttentionArgs& a, Role role) {
  if (kPass == Pass::kScoreRange) return role == kScore;
  if (kPass == Pass::kOutputRange) return role == kOutput;
  return optical::is_set(running_range(a, role));
}

template <class T, int D, Pass kPass>
__global__ void __launch_bounds__(kThreads, D <= 64 ? 4 : 2)
    attention_kernel(const OpticalAttentionArgs a) {
  if constexpr (kPass == Pass::kScoreRange) {
    if (optical::is_set(running_range(a, kScore))) return;
  } else if constexpr (kPass == Pass::kOutputRange) {
    if (optical::is_set(running_range(a, kOutput))) return;
  }
  extern __shared__ __align__(128) unsigned char memory[];
  const Block<D> b(a, *reinterpret_cast<Shared<D>*>(memory));
  mma::copy_tile<kRows, D, kThreads>(
      b.q(), static_cast<const __half*>(a.q_code) + b.query_row() * D, D, b.first_row, a.queries);
  mma::commit_copies();
  prepare(a, b.shared.constants);
  mma::wait_copies<0>();
  __syncthreads();
  const Constants& constants = b.shared.constants;
  const QueryRows<D> q(b);
  const int row = b.row(), offset = b.offset, lane = b.lane;
  const int warp_row = b.first_row + 16 * b.warp;  // rows [warp_row, warp_row + 16)
  // The first pass' range of scores; where the scores' range is not set, positions are the scores.
  constexpr bool kMeasure = kPass == Pass::kScoreRange;
  const ScoreLevels s = kMeasure ? ScoreLevels{product_of(constants).unit, 1.0f, 0.0f, 0.0f, 0.0f}
                                 : score_levels(a, constants);
  const ScoreNoise noise(a, b.batch, b.head);
  const NoiseRow noise_row = noise.row(a, static_cast<uint32_t>(row + offset) / 2);
  float row_add[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    row_add[r] =
        row + r < a.queries ? fmaf(a.q_term[b.query_row() + row + r], s.per_x, s.shift) : s.shift;
  }

  optical::Range seen = optical::unset_range();
  RowSums sums;
  b.over_keys(false, [&](int tile, int stage) {
#pragma unroll
    for (int key = 0; key < kKeys; key += kGroup) {
      const int first = tile * kKeys + key;
      if (first > warp_row + 15 + offset) continue;
      float x[kGroup / 8][4];
      score_positions(b, q, stage, key, s, row_add, x);
      const bool masked = first + kGroup - 1 > warp_row + offset || warp_row + 16 > a.queries;
      if (masked) {
        include_positions<true>(x, row, first, lane, offset, a.queries, seen);
      } else {
        include_positions<false>(x, row, first, lane, offset, a.queries, seen);
      }
      if constexpr (!kMeasure) {
        draw_levels(a, s, noise, noise_row, first, lane, x);
        if (masked) {
          sums.include<true>(x, s.log2, row, first, lane, offset);
        } else {
          sums.include<false>(x, s.log2, row, first, lane, offset);
        }
      }
    }
  });
  if (measures<kPass>(a, kScore)) {
    const optical::Range all = warp_range(seen);
    if (lane == 0 && optical::is_set(all)) {
      see(a, kScore, {(all.lo - s.shift) / s.per_x, (all.hi - s.shift) / s.per_x});
    }
  }
  if constexpr (!kMeasure) {
    float normalizer[2], to_levels[2];
    const float top = static_cast<float>(a.levels - 1);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // A NaN in q saturates to a level; it comes back here.
      normalizer[r] = sums.normalizer(r, s.log2) + 0.0f * row_add[r];
      to_levels[r] = normalizer[r] + log2f(top);
      if (kPass == Pass::kAll && lane % 4 == 0 && row + r < a.queries) {
        a.normalizer[b.query_row() + row + r] = normalizer[r];
      }
    }
    float acc[D / 8][4] = {};
    float sums_of_p[4] = {};  // the product of the probability levels with ones
    constexpr uint32_t kOnes = 0x3c003c00;
    b.over_keys(true, [&](int tile, int stage) {
#pragma unroll
      for (int key = 0; key < kKeys; key += kGroup) {
        const int first = tile * kKeys + key;
        if (first > warp_row + 15 + offset) continue;
        float x[kGroup / 8][4];
        score_positions(b, q, stage, key, s, row_add, x);
        const bool masked = first + kGroup - 1 > warp_row + offset;
        draw_levels(a, s, noise, noise_row, first, lane, x);
#pragma unroll
        for (int n = 0; n < kGroup / 8; ++n) {
#pragma unroll
          for (int c = 0; c < 4; ++c) {
            const float p = exp2_approximate(fmaf(x[n][c], s.log2, to_levels[c / 2]));
            x[n][c] = optical::round_even(p);
          }
          if (masked) {
#pragma unroll
            for (int c = 0; c < 4; ++c) {
              if (!visible(row, first + 8 * n, lane, offset, c)) x[n][c] = 0.0f;
            }
          }
        }
#pragma unroll
        for (int n = 0; n < kGroup / 8; n += 2) {
          const mma::A p = mma::as_a<__half>(x[n], x[n + 1]);
#pragma unroll
          for (int d = 0; d < D / 16; ++d) {
            const mma::B2 v = mma::load_b_transposed(b.v(stage), key + 8 * n, d, lane);
            mma::multiply<__half>(acc[2 * d], p, v.r[0], v.r[1]);
            mma::multiply<__half>(acc[2 * d + 1], p, v.r[2], v.r[3]);
          }
          mma::multiply<__half>(sums_of_p, p, kOnes, kOnes);
        }
      }
    });
    const float p_sum[2] = {sums_of_p[0], sums_of_p[2]};
    const optical::Range out_seen = output_seen<D>(b, acc, p_sum);
    if (lane == 0 && measures<kPass>(a, kOutput)) see(a, kOutput, out_seen);
    if constexpr (kPass == Pass::kAll) write_output<T, D>(b, acc, p_sum);
  }
}

template <class T, int D, Pass kPass>
cudaError_t launch(const OpticalAttentionArgs& a, cudaStream_t stream) {
  const size_t bytes = sizeof(Shared<D>);
  const auto kernel = attention_kernel<T, D, kPass>;
  if (const cudaError_t error = allow_shared(kernel, bytes); error != cudaSuccess) return error;
  const dim3 grid(static_cast<unsigned>(a.batch * a.heads),
                  static_cast<unsigned>((a.queries + kRows - 1) / kRows));
  kernel<<<grid, kThreads, bytes, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace
}  // namespace refract::attention

namespace refract {

cudaError_t launch_attention_forward(const OpticalAttentionArgs& a, Dtype dtype, bool ranges_set,
                                     bool all, cudaStream_t stream) {
  using attention::Pass;
  return attention::dispatch_width(a.head_dim, [&](auto width) {
    constexpr int D = decltype(width)::value;
    if (!ranges_set) {
      cudaError_t error = attention::launch<__half, D, Pass::kScoreRange>(a, stream);
      if (error == cudaSuccess) {
        error = attention::launch<__half, D, Pass::kOutputRange>(a, stream);
      }
      if (error != cudaSuccess) return error;
    }
    if (!all) return cudaSuccess;
    return attention::dispatch_half(dtype, [&](auto element) {
      return attention::launch<decltype(element), D, Pass::kAll>(a, stream);
    });
  });
}

}  // namespace refract
