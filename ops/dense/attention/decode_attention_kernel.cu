// A block does the query heads of one key head of one sequence. LANES neighbouring threads hold one
// key or value, 16 bytes each; a warp reads 32 / LANES of them at a time, two rounds in flight, and
// each group of lanes keeps a softmax of its own over the places it saw. They are joined at the
// end: within the warp by shuffles, between warps through shared memory. Every key and value is
// read once, for all query heads of its group.
#include <algorithm>

#include "ops/dense/attention/decode_attention_kernel.h"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kMostWarps = 8;
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kNone = -1e30f;  // a maximum of nothing; finite, so that differences stay finite

// The softmax over some places, of G queries: maxima (base 2), sums, and the weighted values.
template <int G, int E>
struct Partial {
  float most[G], sum[G], value[G][E];

  __device__ __forceinline__ void clear() {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      most[g] = kNone;
      sum[g] = 0;
#pragma unroll
      for (int e = 0; e < E; ++e) value[g][e] = 0;
    }
  }
  __device__ __forceinline__ void add(int g, float score, const float (&v)[E]) {
    const float next = fmaxf(most[g], score);
    const float old = exp2f(most[g] - next), weight = exp2f(score - next);
    most[g] = next;
    sum[g] = sum[g] * old + weight;
#pragma unroll
    for (int e = 0; e < E; ++e) value[g][e] = value[g][e] * old + weight * v[e];
  }
  // With the lanes `distance` away, which hold the same elements of other places.
  __device__ __forceinline__ void join(int distance) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      const float other = __shfl_xor_sync(0xffffffff, most[g], distance);
      const float other_sum = __shfl_xor_sync(0xffffffff, sum[g], distance);
      const float next = fmaxf(most[g], other);
      const float mine = exp2f(most[g] - next), theirs = exp2f(other - next);
      most[g] = next;
      sum[g] = sum[g] * mine + other_sum * theirs;
#pragma unroll
      for (int e = 0; e < E; ++e) {
        const float v = __shfl_xor_sync(0xffffffff, value[g][e], distance);
        value[g][e] = value[g][e] * mine + v * theirs;
      }
    }
  }
};

template <class T>
__device__ __forceinline__ void load(const T* p, bool inside, float (&out)[kVec<T>]) {
  Vec<T, kVec<T>> v;
  if (inside) v = load_vec<T>(p);
#pragma unroll
  for (int e = 0; e < kVec<T>; ++e) out[e] = inside ? to_float(v.at[e]) : 0.0f;
}

// Query heads first, ..., first + G - 1 of the block's key head; those past `group` compute on
// zeros.
template <class T, int LANES, int G>
__device__ __forceinline__ void attend(const DecodeAttentionArgs& a, int b, int head, int first,
                                       int group, float* shared) {
  constexpr int E = kVec<T>, kPerWarp = 32 / LANES, kRounds = 2;
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int part = lane % LANES, at = part * E;
  const bool inside = at < a.head_dim;
  const T* q = static_cast<const T*>(a.q) + b * a.q_stride +
               static_cast<int64_t>(head * group + first) * a.head_dim + at;
  const int64_t base = b * a.batch_stride + head * a.head_stride + at;
  const T* keys = static_cast<const T*>(a.keys) + base;
  const T* values = static_cast<const T*>(a.values) + base;
  float query[G][E];
#pragma unroll
  for (int g = 0; g < G; ++g) {
    load<T>(q + static_cast<int64_t>(g) * a.head_dim, inside && first + g < group, query[g]);
#pragma unroll
    for (int e = 0; e < E; ++e) query[g][e] *= a.scale * kLog2E;
  }
  Partial<G, E> partial;
  partial.clear();
  const int count = static_cast<int>(min(a.lengths[b] + 1, static_cast<int64_t>(a.places)));
  const int step = warps * kPerWarp;
  // All lanes of a warp go round equally often, since they shuffle.
  for (int from = warp * kPerWarp; from < count; from += step * kRounds) {
    float key[kRounds][E], value[kRounds][E];
    bool valid[kRounds];
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
      const int place = from + r * step + lane / LANES;
      valid[r] = place < count;
      const int64_t offset = static_cast<int64_t>(place) * a.head_dim;
      load<T>(keys + offset, inside && valid[r], key[r]);
      load<T>(values + offset, inside && valid[r], value[r]);
    }
#pragma unroll
    for (int r = 0; r < kRounds; ++r) {
#pragma unroll
      for (int g = 0; g < G; ++g) {
        float score = 0;
#pragma unroll
        for (int e = 0; e < E; ++e) score += query[g][e] * key[r][e];
#pragma unroll
        for (int distance = 1; distance < LANES; distance *= 2)
          score += __shfl_xor_sync(0xffffffff, score, distance);
        if (valid[r]) partial.add(g, score, value[r]);
      }
    }
  }
#pragma unroll
  for (int distance = LANES; distance < 32; distance *= 2) partial.join(distance);

  // Between warps: shared[warp][g] = maximum, sum; behind them the values [warp][g][LANES * E].
  float* values_at = shared + kMostWarps * G * 2;
  if (lane < LANES) {
#pragma unroll
    for (int g = 0; g < G; ++g) {
      if (lane == 0) {
        shared[(warp * G + g) * 2] = partial.most[g];
        shared[(warp * G + g) * 2 + 1] = partial.sum[g];
      }
#pragma unroll
      for (int e = 0; e < E; ++e)
        values_at[(warp * G + g) * LANES * E + at + e] = partial.value[g][e];
    }
  }
  __syncthreads();
  T* out =
      static_cast<T*>(a.out) +
      (static_cast<int64_t>(b) * a.heads + static_cast<int64_t>(head) * group + first) * a.head_dim;
  for (int i = threadIdx.x; i < G * a.head_dim; i += blockDim.x) {
    const int g = i / a.head_dim, d = i - g * a.head_dim;
    if (first + g >= group) break;
    float most = kNone, sum = 0, value = 0;
    for (int w = 0; w < warps; ++w) most = fmaxf(most, shared[(w * G + g) * 2]);
    for (int w = 0; w < warps; ++w) {
      const float share = exp2f(shared[(w * G + g) * 2] - most);
      sum += share * shared[(w * G + g) * 2 + 1];
      value += share * values_at[(w * G + g) * LANES * E + d];
    }
    out[static_cast<int64_t>(g) * a.head_dim + d] = from_float<T>(value / sum);
  }
}

template <class T, int LANES, int G>
__global__ void __launch_bounds__(kMostWarps * 32) decode_attention_kernel(DecodeAttentionArgs a) {
  extern __shared__ float shared[];
  const int group = a.heads / a.key_heads;
  for (int first = 0; first < group; first += G) {
    if (first > 0) __syncthreads();  // the last ones have been read
    attend<T, LANES, G>(a, blockIdx.x / a.key_heads, blockIdx.x % a.key_heads, first, group,
                        shared);
  }
}

template <class T, int LANES, int G>
void launch(const DecodeAttentionArgs& a, int multiprocessors, cudaStream_t stream) {
  const int blocks = a.batch * a.key_heads;
  // Few blocks: more warps each, since nothing else fills the multiprocessors.
  const int warps = blocks < 4 * multiprocessors ? kMostWarps : kMostWarps / 2;
  const size_t shared =
      sizeof(float) * (kMostWarps * G * 2 + static_cast<size_t>(warps) * G * LANES * kVec<T>);
  decode_attention_kernel<T, LANES, G><<<blocks, warps * 32, shared, stream>>>(a);
}

template <class T, int LANES>
void launch_group(const DecodeAttentionArgs& a, int multiprocessors, cudaStream_t stream) {
  const int group = a.heads / a.key_heads;
  if (group == 1) {
    launch<T, LANES, 1>(a, multiprocessors, stream);
  } else if (group == 2) {
    launch<T, LANES, 2>(a, multiprocessors, stream);
  } else {
    launch<T, LANES, 4>(a, multiprocessors, stream);
  }
}

template <class T>
void launch_type(const DecodeAttentionArgs& a, int multiprocessors, cudaStream_t stream) {
  const int lanes = a.head_dim / kVec<T>;
  if (lanes <= 8) {
    launch_group<T, 8>(a, multiprocessors, stream);
  } else if (lanes <= 16) {
    launch_group<T, 16>(a, multiprocessors, stream);
  } else {
    launch_group<T, 32>(a, multiprocessors, stream);
  }
}

}  // namespace

bool decode_attention_fits(int64_t head_dim, Dtype dtype) {
  const int64_t vector = dtype == Dtype::kFloat32 ? 4 : 8;
  return head_dim % vector == 0 && head_dim / vector <= 32;
}

cudaError_t launch_decode_attention(const DecodeAttentionArgs& a, Dtype dtype, int multiprocessors,
                                    cudaStream_t stream) {
  dispatch_cuda(dtype, [&](auto tag) {
    launch_type<typename decltype(tag)::type>(a, multiprocessors, stream);
  });
  return cudaGetLastError();
}

}  // namespace refract
