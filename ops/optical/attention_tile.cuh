// What the forward and the backward kernel of optical attention share: ranges, the noisy levels of
// a tile of scores, and who sees whom.
#pragma once
#include "ops/optical/attention_kernel.h"
#include "ops/optical/mma.cuh"
#include "ops/optical/quantizer.h"

namespace refract::attention {

enum Role { kQuery, kKey, kScore, kValue, kOutput, kRoles };

// Order of floats as unsigned integers, so that atomics find a minimum and a maximum: whatever the
// order of arrival, the same result.
__device__ __forceinline__ uint32_t ordered(float x) {
  const uint32_t bits = __float_as_uint(x);
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float unordered(uint32_t key) {
  return __uint_as_float((key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key);
}
constexpr uint32_t kNoMinimum = 0xffffffffu, kNoMaximum = 0;

__device__ __forceinline__ void see(const OpticalAttentionArgs& a, Role role, optical::Range r) {
  if (!optical::is_set(r)) return;
  atomicMin(a.seen + 2 * role, ordered(r.lo));
  atomicMax(a.seen + 2 * role + 1, ordered(r.hi));
}

__device__ __forceinline__ optical::Range running_range(const OpticalAttentionArgs& a, Role role) {
  return {a.ranges[2 * role], a.ranges[2 * role + 1]};
}
__device__ __forceinline__ optical::Range seen_range(const OpticalAttentionArgs& a, Role role) {
  const uint32_t lo = __ldcg(a.seen + 2 * role), hi = __ldcg(a.seen + 2 * role + 1);
  if (lo == kNoMinimum || hi == kNoMaximum) return optical::unset_range();
  const float scale = role == kScore ? a.seen_score_scale : 1.0f;
  return {unordered(lo) * scale, unordered(hi) * scale};
}
// What the call quantizes with.
__device__ __forceinline__ optical::Range range_of(const OpticalAttentionArgs& a, Role role) {
  const optical::Range r = running_range(a, role);
  return optical::is_set(r) ? r : seen_range(a, role);
}

__device__ __forceinline__ optical::Range warp_range(optical::Range r) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    r.lo = fminf(r.lo, __shfl_xor_sync(0xffffffffu, r.lo, offset));
    r.hi = fmaxf(r.hi, __shfl_xor_sync(0xffffffffu, r.hi, offset));
  }
  return r;
}

// The product of two operands' codes in units of the product: value = unit * sum of codes +
// a term of the row + a term of the column, from value = residual + unit_a * code on both sides.
struct Product {
  float unit;            // of both codes
  float row, column;     // factors of the sums of a row's and of a column's codes
  float constant;        // per element of the reduction
};
__device__ __forceinline__ Product product_of(const OpticalAttentionArgs& a) {
  const optical::Quantizer q = optical::quantizer(range_of(a, kQuery), a.levels, 0.0f);
  const optical::Quantizer k = optical::quantizer(range_of(a, kKey), a.levels, a.lut_min);
  const optical::Coder cq = optical::coder(q), ck = optical::coder(k);
  const float uq = q.step / cq.unit, uk = k.step / ck.unit;
  return {uq * uk, uq * ck.residual, uk * cq.residual, cq.residual * ck.residual};
}

// From a sum of code products to a level. Positions are shifted by -1/2, since what is added to
// them is uniform in [0, 1).
struct ScoreLevels {
  float unit;     // positions per unit of the codes' product
  float per_x;    // positions per unit of the score
  float shift;    // -lo * per_x - 1/2
  float top;      // the highest position, less than L - 1 - 1/2 by what rounding could add
  float log2;     // log2(e) * scale * (units per level): what a level adds to log2(probability)
};
__device__ __forceinline__ ScoreLevels score_levels(const OpticalAttentionArgs& a) {
  const optical::Quantizer q = optical::quantizer(range_of(a, kScore), a.levels, 0.0f);
  return {product_of(a).unit * q.scale, q.scale, -q.lo * q.scale - 0.5f,
          fminf((q.hi - q.lo) * q.scale - 0.5f, q.top - 0.5001f),
          a.scale * q.step * 1.44269504f};
}

// Philox counters of the scores of one head: a block holds the 2 x 2 patch of query rows 2 i, 2 i +
// 1 and keys 2 j, 2 j + 1, word = 2 (row & 1) + (key & 1); see attention.h.
struct ScoreNoise {
  PhiloxKey key;
  uint64_t step, head;  // head: (sequence * heads + head) << 38
  bool one;
  float shared;  // in [0, 1)

  __device__ __forceinline__ void draw(uint32_t row_pair, uint32_t key_pair,
                                       float (&noise)[4]) const {
    if (one) {
#pragma unroll
      for (int i = 0; i < 4; ++i) noise[i] = shared;
      return;
    }
    const PhiloxBlock block =
        philox(key, step, head | (static_cast<uint64_t>(row_pair) << 19) | key_pair);
#pragma unroll
    for (int i = 0; i < 4; ++i) noise[i] = philox_uniform(block.word[i]);
  }
};
__device__ __forceinline__ ScoreNoise score_noise(const OpticalAttentionArgs& a, int batch,
                                                  int head) {
  const uint64_t sequence = static_cast<uint64_t>(a.clock[1]) + static_cast<uint64_t>(batch);
  return {a.score_key, static_cast<uint64_t>(a.clock[0]),
          (sequence * static_cast<uint64_t>(a.heads) + static_cast<uint64_t>(head)) << 38,
          a.one_noise, a.shared_noise + 0.5f};
}

__device__ __forceinline__ float noisy_level(const ScoreLevels& s, float position, float noise) {
  return optical::round_even(fminf(fmaxf(position, -0.5f), s.top) + noise);
}

__device__ __forceinline__ float exp2_approximate(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Calls f with the head width as a compile-time constant.
template <int kValueOf>
struct Constant {
  static constexpr int value = kValueOf;
};
template <class F>
cudaError_t dispatch_width(int head_dim, F&& f) {
  switch (head_dim) {
    case 32:
      return f(Constant<32>{});
    case 64:
      return f(Constant<64>{});
    case 128:
      return f(Constant<128>{});
    default:
      return cudaErrorInvalidValue;
  }
}
// float32 has no kernel: its callers use the composite form.
template <class F>
cudaError_t dispatch_half(Dtype dtype, F&& f) {
  if (dtype == Dtype::kBFloat16) return f(__nv_bfloat16{});
  if (dtype == Dtype::kFloat16) return f(__half{});
  return cudaErrorInvalidValue;
}

template <class Kernel>
cudaError_t allow_shared(Kernel kernel, size_t bytes) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(bytes));
}

}  // namespace refract::attention
