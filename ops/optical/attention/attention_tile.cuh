// What the forward and the backward kernel of optical attention share: ranges, the noisy levels of
// a tile of scores, and who sees whom.
#pragma once
#include "ops/device/mma.cuh"
#include "ops/optical/attention/attention_kernel.h"
#include "ops/optical/quantize/quantization_math.h"

namespace refract::attention {

enum Role { kQuery, kKey, kScore, kValue, kOutput, kRoles };

template <class T>
__device__ __forceinline__ const T* head_of(const AttentionTensor& t, int batch, int head) {
  return static_cast<const T*>(t.data) + batch * t.batch + head * t.head;
}

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

// Called by one thread of a warp or block. Looks before it writes: most of what comes changes
// nothing, and atomics on one address wait for each other.
__device__ __forceinline__ void see(const OpticalAttentionArgs& a, Role role, optical::Range r) {
  if (a.seen == nullptr || !optical::is_set(r)) return;
  uint32_t* seen = a.seen + 2 * role;
  if (ordered(r.lo) < __ldcg(seen)) atomicMin(seen, ordered(r.lo));
  if (ordered(r.hi) > __ldcg(seen + 1)) atomicMax(seen + 1, ordered(r.hi));
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
  return optical::is_set(r) || a.seen == nullptr ? r : seen_range(a, role);
}

__device__ __forceinline__ optical::Range warp_range(optical::Range r) {
#pragma unroll
  for (int offset = 16; offset > 0; offset >>= 1) {
    r.lo = fminf(r.lo, __shfl_xor_sync(0xffffffffu, r.lo, offset));
    r.hi = fmaxf(r.hi, __shfl_xor_sync(0xffffffffu, r.hi, offset));
  }
  return r;
}

// What follows from the ranges, once per block in shared memory: divisions are slow.
struct Constants {
  optical::Quantizer quantizer[kRoles];
  optical::Coder coder[kRoles];
  float unit[kRoles];  // value per unit of a code
};
// A barrier must follow before the constants are read.
__device__ __forceinline__ void prepare(const OpticalAttentionArgs& a, Constants& constants) {
  if (threadIdx.x >= kRoles) return;
  const Role role = static_cast<Role>(threadIdx.x);
  const float lut_min = role == kKey || role == kValue ? a.lut_min : 0.0f;
  const optical::Quantizer q = optical::quantizer(range_of(a, role), a.levels, lut_min);
  const optical::Coder c = optical::coder(q);
  constants.quantizer[role] = q;
  constants.coder[role] = c;
  constants.unit[role] = q.step / c.unit;
}

// The product of q's and k's codes as scores: unit * sum of code products + a term of the row + a
// term of the column, from value = residual + unit * code on both sides.
struct Product {
  float unit;
  float row, column;  // factors of the sums of a row's and of a column's codes
  float constant;     // per element of the reduction
};
__device__ __forceinline__ Product product_of(const Constants& c) {
  const float uq = c.unit[kQuery], uk = c.unit[kKey];
  const float rq = c.coder[kQuery].residual, rk = c.coder[kKey].residual;
  return {uq * uk, uq * rk, uk * rq, rq * rk};
}

// From a sum of code products to a level. A position here is u / (L - 1), so that clamping it is a
// saturating operation.
struct ScoreLevels {
  float unit;   // positions per unit of the codes' product
  float per_x;  // positions per unit of the score
  float shift;  // -lo * per_x
  float top;    // L - 1
  float log2;   // log2(e) * scale * (units per level): what a level adds to log2(probability)
};
__device__ __forceinline__ ScoreLevels score_levels(const OpticalAttentionArgs& a,
                                                    const Constants& c) {
  const optical::Quantizer& q = c.quantizer[kScore];
  const float per_x = q.scale / q.top;
  return {product_of(c).unit * per_x, per_x, -q.lo * per_x, q.top, a.scale * q.step * 1.44269504f};
}

// rint(u + xi) as the floor of u + (xi + 1/2): both steps round down, so that the sum's own
// rounding lifts no position to the next level. noise = xi + 1/2 + 1.
__device__ __forceinline__ float noisy_level(const ScoreLevels& s, float position, float noise) {
  const float above = __fmaf_rd(__saturatef(position), s.top, noise);
  return __fadd_rd(above, 8388608.0f) - 8388609.0f;
}

// Philox (ops/common/philox.h) for the scores of one head, eight of them per block, see
// attention.h. The counter's words are (row pair << 19 | block of its keys, head << 6 | row pair >>
// 13, step), of which only the first changes along a row: half of the first rounds is done once per
// row.
struct NoiseRow {
  uint32_t counter;        // row pair << 19
  uint32_t second, third;  // what rounds 1 and 2 add to their third word
};
struct ScoreNoise {
  uint32_t head;           // counter word 1 without the row's bits, after round 0
  uint32_t first, second;  // what rounds 0 and 1 add to their third and first word

  __device__ __forceinline__ ScoreNoise(const OpticalAttentionArgs& a, int batch, int head_index) {
    const uint64_t sequence = static_cast<uint64_t>(a.clock[1]) + static_cast<uint64_t>(batch);
    const uint64_t stream =
        sequence * static_cast<uint64_t>(a.heads) + static_cast<uint64_t>(head_index);
    const uint64_t step = static_cast<uint64_t>(a.clock[0]);
    const uint64_t product = 0xCD9E8D57ull * static_cast<uint32_t>(step);
    head = (static_cast<uint32_t>(stream) << 6) ^ static_cast<uint32_t>(product >> 32) ^
           a.score_keys[0][0];
    first = static_cast<uint32_t>(step >> 32) ^ a.score_keys[0][1];
    second = static_cast<uint32_t>(product) ^ a.score_keys[1][0];
  }
  __device__ __forceinline__ NoiseRow row(const OpticalAttentionArgs& a, uint32_t pair) const {
    const uint64_t product = 0xD2511F53ull * (head ^ (pair >> 13));
    return {pair << 19, static_cast<uint32_t>(product >> 32) ^ a.score_keys[1][1],
            static_cast<uint32_t>(product) ^ a.score_keys[2][1]};
  }
  // The words of a block, whose four have 16 keys: 4 (key / 16) + key % 8 / 2.
  __device__ __forceinline__ PhiloxBlock draw(const OpticalAttentionArgs& a, const NoiseRow& row,
                                              uint32_t block) const {
    const uint64_t p = 0xD2511F53ull * (row.counter | block);                     // round 0
    const uint64_t q = 0xCD9E8D57ull * (static_cast<uint32_t>(p >> 32) ^ first);  // round 1
    uint64_t p0 = 0xD2511F53ull * (static_cast<uint32_t>(q >> 32) ^ second);      // round 2
    uint64_t p1 = 0xCD9E8D57ull * (static_cast<uint32_t>(p) ^ row.second);
    uint32_t c0 = static_cast<uint32_t>(p1 >> 32) ^ static_cast<uint32_t>(q) ^ a.score_keys[2][0];
    uint32_t c1 = static_cast<uint32_t>(p1);
    uint32_t c2 = static_cast<uint32_t>(p0 >> 32) ^ row.third;
    uint32_t c3 = static_cast<uint32_t>(p0);
#pragma unroll
    for (int round = 3; round < kNoiseRounds; ++round) {
      p0 = 0xD2511F53ull * c0;
      p1 = 0xCD9E8D57ull * c2;
      c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ a.score_keys[round][0];
      c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ a.score_keys[round][1];
      c1 = static_cast<uint32_t>(p1);
      c3 = static_cast<uint32_t>(p0);
    }
    return {{c0, c1, c2, c3}};
  }
};

// noise_mask and noise_bits applied to the low or the high half of a word.
__device__ __forceinline__ float low_noise(const OpticalAttentionArgs& a, uint32_t word) {
  return __uint_as_float((word << 7 & a.noise_mask) | a.noise_bits);
}
__device__ __forceinline__ float high_noise(const OpticalAttentionArgs& a, uint32_t word) {
  return __uint_as_float((word >> 9 & a.noise_mask) | a.noise_bits);
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
