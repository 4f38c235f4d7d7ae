// What runs beside the attention kernels: q, k and v to codes in fp16 with the sums that the
// product needs, and the ranges before and after.
#include "ops/device/vector.cuh"
#include "ops/optical/attention/attention_encoder.cuh"
#include "ops/optical/quantize/ranges.cuh"

namespace refract::attention {
namespace {

using optical::kThreads;

__global__ void reset_kernel(uint32_t* seen) {
  if (threadIdx.x < 2 * kRoles) seen[threadIdx.x] = threadIdx.x % 2 == 0 ? kNoMinimum : kNoMaximum;
}

// One of q, k, v and what becomes of it.
struct Operand {
  AttentionTensor tensor;
  Role role;
  int tokens, heads;
  __half* code;
  float* term;
};
__device__ __forceinline__ Operand operand_of(const OpticalAttentionArgs& a, int which) {
  if (which == 0) {
    return {a.q, kQuery, a.queries, a.heads, static_cast<__half*>(a.q_code), a.q_term};
  }
  if (which == 1) {
    return {a.k, kKey, a.keys, a.kv_heads, static_cast<__half*>(a.k_code), a.k_term};
  }
  return {a.v, kValue, a.keys, a.kv_heads, static_cast<__half*>(a.v_code), nullptr};
}

// A thread has eight neighbours of a row, blockIdx.y is q, k or v. kMeasure: only the range, and
// that only where one is not set.
template <class T, int D, bool kMeasure>
__global__ void __launch_bounds__(kThreads) operands_kernel(const OpticalAttentionArgs a) {
  const Operand x = operand_of(a, static_cast<int>(blockIdx.y));
  if (kMeasure && optical::is_set(running_range(a, x.role))) return;
  constexpr int kPerRow = D / 8;
  const int64_t count = static_cast<int64_t>(a.batch) * x.heads * x.tokens * kPerRow;
  __shared__ Constants constants;
  if constexpr (!kMeasure) {
    prepare(a, constants);
    __syncthreads();
  }
  const Encoder encoder(constants, x.role);
  const Product product = product_of(constants);
  const float factor = x.role == kQuery ? product.row : product.column;
  const float constant = x.role == kQuery ? product.constant * D : 0.0f;
  optical::Range seen = optical::unset_range();
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t begin = static_cast<int64_t>(blockIdx.x) * kThreads; begin < count;
       begin += stride) {
    const int64_t item = begin + threadIdx.x;
    const bool valid = item < count;
    const int64_t row = item / kPerRow;
    const int chunk = static_cast<int>(item % kPerRow);
    float sum = 0.0f;
    if (valid) {
      const int64_t token = row % x.tokens, outer = row / x.tokens;
      const T* from = static_cast<const T*>(x.tensor.data) + outer / x.heads * x.tensor.batch +
                      token * x.tensor.token + outer % x.heads * x.tensor.head + chunk * 8;
      const Vec<T, 8> in = load_vec<T, 8>(from);
      Vec<__half, 8> codes;
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float value = to_float(in.at[i]);
        seen = optical::include(seen, value);
        if constexpr (!kMeasure) {
          const float code = encoder(value);
          codes.at[i] = __float2half_rn(code);
          sum += code;
        }
      }
      if constexpr (!kMeasure) store_vec(x.code + row * D + chunk * 8, codes);
    }
    if constexpr (!kMeasure) {
#pragma unroll
      for (int offset = kPerRow / 2; offset > 0; offset >>= 1) {
        sum += __shfl_xor_sync(0xffffffffu, sum, offset);
      }
      if (valid && chunk == 0 && x.term != nullptr) x.term[row] = fmaf(sum, factor, constant);
    }
  }
  seen = optical::block_range(seen);
  if (threadIdx.x == 0) see(a, x.role, seen);
}

__global__ void finish_kernel(const OpticalAttentionArgs a, float* used, float* running,
                              float smooth, bool clipped) {
  if (threadIdx.x >= kRoles) return;
  const Role role = static_cast<Role>(threadIdx.x);
  const optical::Range before = running_range(a, role), now = range_of(a, role);
  optical::Range seen = seen_range(a, role);
  used[2 * role] = now.lo;
  used[2 * role + 1] = now.hi;
  if (running == nullptr) return;
  if (clipped && (role == kScore || role == kOutput) && optical::is_set(now)) {
    seen = {fminf(fmaxf(seen.lo, now.lo), now.hi), fminf(fmaxf(seen.hi, now.lo), now.hi)};
  }
  const optical::Range after = optical::moved(before, seen, smooth);
  running[2 * role] = after.lo;
  running[2 * role + 1] = after.hi;
}

}  // namespace
}  // namespace refract::attention

namespace refract {

cudaError_t launch_attention_reset(const OpticalAttentionArgs& a, cudaStream_t stream) {
  attention::reset_kernel<<<1, 32, 0, stream>>>(a.seen);
  return cudaGetLastError();
}

cudaError_t launch_attention_operands(const OpticalAttentionArgs& a, Dtype dtype, bool with_v,
                                      bool ranges_set, int multiprocessors, cudaStream_t stream) {
  return attention::dispatch_half(dtype, [&](auto element) {
    using T = decltype(element);
    return attention::dispatch_width(a.head_dim, [&](auto width) {
      constexpr int D = decltype(width)::value;
      const int64_t q_rows = static_cast<int64_t>(a.heads) * a.queries;
      const int64_t k_rows = static_cast<int64_t>(a.kv_heads) * a.keys;
      const int64_t items = a.batch * (q_rows > k_rows ? q_rows : k_rows) * (D / 8);
      const int64_t blocks = (items + attention::kThreads - 1) / attention::kThreads;
      const int64_t most = static_cast<int64_t>(multiprocessors) * 4;
      const dim3 grid(static_cast<unsigned>(blocks < most ? blocks : most), with_v ? 3 : 2);
      if (!ranges_set) {
        attention::operands_kernel<T, D, true><<<grid, attention::kThreads, 0, stream>>>(a);
      }
      attention::operands_kernel<T, D, false><<<grid, attention::kThreads, 0, stream>>>(a);
      return cudaGetLastError();
    });
  });
}

cudaError_t launch_attention_finish(const OpticalAttentionArgs& a, float* used, float* running,
                                    float smooth, bool clipped, cudaStream_t stream) {
  attention::finish_kernel<<<1, 32, 0, stream>>>(a, used, running, smooth, clipped);
  return cudaGetLastError();
}

}  // namespace refract
