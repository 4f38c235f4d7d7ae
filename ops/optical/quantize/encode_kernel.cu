// Operands: a warp has a row, a block some rows of one member. Each element is read once for its
// code, the row's sum and the member's range.
#include <type_traits>

#include "ops/optical/matmul/product_kernel.h"
#include "ops/optical/quantize/ranges.cuh"

namespace refract {
namespace {

using optical::kThreads;
using optical::kWarps;
using optical::Range;

template <class T>
__global__ void __launch_bounds__(kThreads) seen_kernel(OpticalSeenArgs a, bool aligned) {
  constexpr int N = kVec<T>;
  const int m = blockIdx.y;
  if (a.only_unset && optical::is_set(optical::load_range(a.members.range[m]))) return;
  const T* x = static_cast<const T*>(a.x) + a.members.begin[m] * a.width;
  const int64_t count = (a.members.begin[m + 1] - a.members.begin[m]) * a.width;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  Range r = optical::unset_range();
  const int64_t whole = aligned ? count / N * N : 0;
  for (int64_t i = thread * N; i < whole; i += stride * N) {
    const Vec<T, N> v = load_vec(x + i);
#pragma unroll
    for (int j = 0; j < N; ++j) r = optical::include(r, to_float(v.at[j]));
  }
  for (int64_t i = whole + thread; i < count; i += stride) {
    r = optical::include(r, to_float(x[i]));
  }
  r = optical::block_range(r);
  if (threadIdx.x == 0) optical::store_range(a.seen + (m * gridDim.x + blockIdx.x) * 2, r);
}

__global__ void __launch_bounds__(kThreads)
    move_kernel(float* range, const float* seen, int parts, float smooth) {
  const Range merged = optical::merge_parts(seen, parts);
  if (threadIdx.x == 0) {
    optical::store_range(range, optical::moved(optical::load_range(range), merged, smooth));
  }
}

// Minimum and maximum in pairs of a half type, one instruction for two elements.
template <class T>
struct Extremes {
  using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;
  Pair lo, hi;
  __device__ Extremes() {
    const auto inf = from_float<T>(INFINITY), minus = from_float<T>(-INFINITY);
    lo = Pair(inf, inf);
    hi = Pair(minus, minus);
  }
  template <int N>
  __device__ __forceinline__ void include(const Vec<T, N>& v) {
#pragma unroll
    for (int j = 0; j < N; j += 2) {
      const Pair p(v.at[j], v.at[N == 1 ? 0 : j + 1]);
      lo = __hmin2(lo, p);
      hi = __hmax2(hi, p);
    }
  }
  __device__ __forceinline__ Range range() const {
    return {fminf(to_float(lo.x), to_float(lo.y)), fmaxf(to_float(hi.x), to_float(hi.y))};
  }
};
template <>
struct Extremes<float> {
  Range r = optical::unset_range();
  template <int N>
  __device__ __forceinline__ void include(const Vec<float, N>& v) {
#pragma unroll
    for (int j = 0; j < N; ++j) r = optical::include(r, v.at[j]);
  }
  __device__ __forceinline__ Range range() const { return r; }
};

// Whole codes of a vector without a LUT floor, or codes with it; adds them to `sum`.
template <class T, int N, bool kFloor>
__device__ __forceinline__ Vec<__half, N> codes_of(const Vec<T, N>& v, const optical::Quantizer& q,
                                                   const optical::Coder& c, float& sum) {
  Vec<__half, N> out;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float x = to_float(v.at[j]);
    const float code = kFloor ? optical::code(q, c, optical::level(q, x))
                              : optical::whole_code(q, optical::kRound + c.zero, x);
    sum += code;
    out.at[j] = __float2half_rn(kFloor ? code : optical::mul(code, c.unit));
  }
  return out;
}

template <class T, bool kAligned, bool kFloor>
__global__ void __launch_bounds__(kThreads, 4) encode_kernel(OpticalEncodeArgs a) {
  constexpr int N = kAligned ? kVec<T> : 1, kBatch = kAligned ? 4 : 1;
  optical::let_later_come();
  optical::wait_for_earlier();
  const int m = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const float* unset =
      a.unset == nullptr ? nullptr : a.unset + static_cast<int64_t>(m) * kOpticalParts * 2;
  const Range range =
      optical::effective_range(optical::load_range(a.members.range[m]), unset, kOpticalParts);
  __shared__ optical::Quantizer shared_q;  // divisions once per block, not once per thread
  __shared__ optical::Coder shared_c;
  if (threadIdx.x == 0) {
    shared_q = optical::quantizer(range, a.levels, a.lut_min);
    shared_c = optical::coder(shared_q);
    if (blockIdx.x == 0) {
      optical::store_range(a.used + 2 * m, range);
      if (m == 0 && a.ticket != nullptr) *a.ticket = 0;
    }
  }
  __syncthreads();
  const optical::Quantizer q = shared_q;
  const optical::Coder c = shared_c;
  const int width = static_cast<int>(a.width);
  Extremes<T> seen;
  const int64_t end = a.members.begin[m + 1];
  for (int64_t row = a.members.begin[m] + static_cast<int64_t>(blockIdx.x) * kWarps + warp;
       row < end; row += static_cast<int64_t>(gridDim.x) * kWarps) {
    const T* __restrict__ from = static_cast<const T*>(a.x) + row * a.width;
    __half* __restrict__ to = static_cast<__half*>(a.codes) + row * a.width;
    float sum = 0.0f;
    for (int i = lane * N; i < width; i += 32 * N * kBatch) {
      Vec<T, N> v[kBatch];
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {  // all loads before the first use
        if (i + k * 32 * N < width) v[k] = load_vec<T, N>(from + i + k * 32 * N);
      }
#pragma unroll
      for (int k = 0; k < kBatch; ++k) {
        if (i + k * 32 * N >= width) break;
        seen.include(v[k]);
        store_vec(to + i + k * 32 * N, codes_of<T, N, kFloor>(v[k], q, c, sum));
      }
    }
    sum = warp_sum(sum);
    if (lane == 0) a.sums[row] = kFloor ? sum : optical::mul(sum, c.unit);
  }
  const Range r = optical::block_range(seen.range());
  if (threadIdx.x == 0) optical::store_range(a.seen + (m * kOpticalParts + blockIdx.x) * 2, r);
}

template <class T>
__global__ void __launch_bounds__(kThreads) quantize_kernel(OpticalQuantizeArgs a, bool aligned) {
  constexpr int N = kVec<T>;
  const T* x = static_cast<const T*>(a.x);
  T* y = static_cast<T*>(a.y);
  const Range range = optical::effective_range(optical::load_range(a.range), a.seen, kOpticalParts);
  const optical::Quantizer q = optical::quantizer(range, a.levels, a.lut_min);
  const optical::Now now = optical::now_of(a.clock);
  const uint64_t first = now.slice * static_cast<uint64_t>(a.slice);
  const bool whole = aligned && (first & 7) == 0;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < a.count;
       i += stride) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    if (whole && i + N <= a.count) {
      Vec<T, N> v = load_vec(x + i);
      PhiloxBlock drawn{};
      if (a.draws) drawn = noise_block(a.key, now.step, index >> 3);
      const bool half = N == 4 && (index & 4) != 0;  // four floats draw half a block
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const uint32_t word = half ? drawn.word[(j / 2 + 2) % 4] : drawn.word[j / 2];
        const float xi = a.draws ? optical::noise_of_half(word, j % 2 != 0) : a.shared;
        const float level = optical::noisy_level(q, to_float(v.at[j]), xi);
        v.at[j] = from_float<T>(optical::value(q, level));
      }
      store_vec(y + i, v);
    } else {
      for (int j = 0; j < N && i + j < a.count; ++j) {
        const float xi = a.draws ? optical::noise_at(a.key, now.step, index + j) : a.shared;
        const float level = optical::noisy_level(q, to_float(x[i + j]), xi);
        y[i + j] = from_float<T>(optical::value(q, level));
      }
    }
  }
}

}  // namespace

cudaError_t launch_optical_seen(const OpticalSeenArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const bool aligned = aligned16(a.x) && (a.members.count == 1 || a.width % kVec<T> == 0);
    seen_kernel<T><<<dim3(kOpticalParts, a.members.count), kThreads, 0, stream>>>(a, aligned);
    return cudaGetLastError();
  });
}

cudaError_t launch_optical_move(float* range, const float* seen, int parts, float smooth,
                                cudaStream_t stream) {
  move_kernel<<<1, kThreads, 0, stream>>>(range, seen, parts, smooth);
  return cudaGetLastError();
}

cudaError_t launch_optical_quantize(const OpticalQuantizeArgs& a, Dtype dtype, int multiprocessors,
                                    cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t per_block = kThreads * kVec<T>, most = static_cast<int64_t>(multiprocessors) * 16;
    const int64_t blocks = (a.count + per_block - 1) / per_block;
    quantize_kernel<T>
        <<<static_cast<unsigned>(blocks < most ? blocks : most), kThreads, 0, stream>>>(
            a, aligned16(a.x, a.y));
    return cudaGetLastError();
  });
}

cudaError_t launch_optical_encode(const OpticalEncodeArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const dim3 grid(kOpticalParts, a.members.count);
    if (!aligned16(a.x, a.codes) || a.width % kVec<T> != 0) {
      return optical::launch_overlapped(encode_kernel<T, false, true>, grid, stream, a);
    }
    return a.lut_min > 0
               ? optical::launch_overlapped(encode_kernel<T, true, true>, grid, stream, a)
               : optical::launch_overlapped(encode_kernel<T, true, false>, grid, stream, a);
  });
}

}  // namespace refract
