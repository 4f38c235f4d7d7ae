// Causal attention of short sequences. A block takes some heads, brings their keys and values into
// shared memory, and each thread then goes over the keys of one query with a running maximum. For a
// handful of tokens that is a few loads and products a thread; nothing is padded to a tile.
#include <climits>
#include <cmath>

#include "ops/dense/attention/attention_kernel.h"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kThreads = 128;
constexpr int kSharedFloats = 48 * 1024 / 4;
constexpr int kVector = 4;  // elements per access, 8 or 16 bytes
constexpr int kPad = 4;     // floats between heads, so that a warp's heads lie in different banks
constexpr float kLog2E = 1.4426950408889634f;

struct Task {
  int64_t all;  // sequences times heads
  int length, heads, kv_heads, together;
  float scale;
};

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

// Where head `part` (of all of q, k and v) of a sequence's first token starts.
template <class T, int kDim>
__device__ __forceinline__ const T* start_of(const T* qkv, const Task& task, int64_t sequence,
                                             int part) {
  return qkv + (sequence * task.length * (task.heads + 2 * task.kv_heads) + part) * kDim;
}

// Keys and values [2, length, kDim] of each of the block's heads.
template <class T, int kDim>
__device__ __forceinline__ void load(const T* qkv, const Task& task, int64_t first, int count,
                                     float* shared) {
  constexpr int kAcross = kDim / kVector;
  const int row = (task.heads + 2 * task.kv_heads) * kDim, each = 2 * task.length * kAcross;
  for (int i = static_cast<int>(threadIdx.x); i < count * each; i += kThreads) {
    const int head = i / each, rest = i % each, token = rest / kAcross % task.length;
    const int64_t pair = first + head;
    const int shared_by = task.heads / task.kv_heads;
    const int kv = static_cast<int>(pair % task.heads) / shared_by;
    const int part = task.heads + (rest < each / 2 ? 0 : task.kv_heads) + kv;
    const T* from = start_of<T, kDim>(qkv, task, pair / task.heads, part) +
                    static_cast<int64_t>(token) * row + rest % kAcross * kVector;
    const Vec<T, kVector> value = load_vec<T, kVector>(from);
    float* to = shared + head * (2 * task.length * kDim + kPad) + rest * kVector;
    *reinterpret_cast<float4*>(to) = make_float4(to_float(value.at[0]), to_float(value.at[1]),
                                                 to_float(value.at[2]), to_float(value.at[3]));
  }
}

template <int kDim>
__device__ __forceinline__ float dot(const float (&q)[kDim], const float* k) {
  float part[4] = {};
#pragma unroll
  for (int d = 0; d < kDim; d += 4) {
    const float4 value = *reinterpret_cast<const float4*>(k + d);
    part[0] = fmaf(q[d], value.x, part[0]);
    part[1] = fmaf(q[d + 1], value.y, part[1]);
    part[2] = fmaf(q[d + 2], value.z, part[2]);
    part[3] = fmaf(q[d + 3], value.w, part[3]);
  }
  return (part[0] + part[1]) + (part[2] + part[3]);
}

// Over keys 0 to `last`; q is scaled for exponentials to base 2.
template <int kDim>
__device__ __forceinline__ void attend(const float (&q)[kDim], const float* keys,
                                       const float* values, int last, float (&sum)[kDim]) {
  float top = dot(q, keys), total = 1.0f;
#pragma unroll
  for (int d = 0; d < kDim; ++d) sum[d] = values[d];
  for (int j = 1; j <= last; ++j) {
    const float score = dot(q, keys + j * kDim);
    if (score > top) {
      const float shrink = exp2_fast(top - score);
      total *= shrink;
#pragma unroll
      for (int d = 0; d < kDim; ++d) sum[d] *= shrink;
      top = score;
    }
    const float p = exp2_fast(score - top);
    total += p;
#pragma unroll
    for (int d = 0; d < kDim; ++d) sum[d] = fmaf(p, values[j * kDim + d], sum[d]);
  }
  const float inverse = 1.0f / total;
#pragma unroll
  for (int d = 0; d < kDim; ++d) sum[d] *= inverse;
}

template <class T, int kDim>
__global__ void __launch_bounds__(kThreads)
    short_attention_kernel(const T* qkv, T* out, const Task task) {
  extern __shared__ float4 memory[];
  float* shared = reinterpret_cast<float*>(memory);
  const int64_t first = static_cast<int64_t>(blockIdx.x) * task.together;
  const int count = static_cast<int>(min(static_cast<int64_t>(task.together), task.all - first));
  load<T, kDim>(qkv, task, first, count, shared);
  __syncthreads();
  for (int query = static_cast<int>(threadIdx.x); query < count * task.length; query += kThreads) {
    const int head = query / task.length, token = query % task.length;
    const int64_t sequence = (first + head) / task.heads;
    const int h = static_cast<int>((first + head) % task.heads);
    const T* from = start_of<T, kDim>(qkv, task, sequence, h) +
                    static_cast<int64_t>(token) * (task.heads + 2 * task.kv_heads) * kDim;
    float q[kDim], sum[kDim];
#pragma unroll
    for (int d = 0; d < kDim; d += kVector) {
      const Vec<T, kVector> value = load_vec<T, kVector>(from + d);
#pragma unroll
      for (int k = 0; k < kVector; ++k) q[d + k] = to_float(value.at[k]) * task.scale;
    }
    const float* keys = shared + head * (2 * task.length * kDim + kPad);
    attend(q, keys, keys + task.length * kDim, token, sum);
    T* to = out + ((sequence * task.length + token) * task.heads + h) * kDim;
#pragma unroll
    for (int d = 0; d < kDim; d += kVector) {
      Vec<T, kVector> value;
#pragma unroll
      for (int k = 0; k < kVector; ++k) value.at[k] = from_float<T>(sum[d + k]);
      store_vec<T, kVector>(to + d, value);
    }
  }
}

int floats_per_head(int64_t length, int64_t head_dim) {
  return static_cast<int>(2 * length * head_dim) + kPad;
}

template <class T, int kDim>
cudaError_t launch(const ShortAttention& a, cudaStream_t stream) {
  const int each = floats_per_head(a.length, kDim);
  const int queries = static_cast<int>(kThreads / a.length);
  const int fit = kSharedFloats / each, together = queries < 1 ? 1 : queries < fit ? queries : fit;
  const Task task{a.sequences * a.heads,
                  static_cast<int>(a.length),
                  static_cast<int>(a.heads),
                  static_cast<int>(a.kv_heads),
                  together,
                  static_cast<float>(a.scale) * kLog2E};
  const int64_t blocks = (task.all + together - 1) / together;
  if (blocks > INT_MAX || each > kSharedFloats) return cudaErrorInvalidValue;
  short_attention_kernel<T, kDim>
      <<<static_cast<unsigned>(blocks), kThreads, static_cast<size_t>(together) * each * 4,
         stream>>>(static_cast<const T*>(a.qkv), static_cast<T*>(a.out), task);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_short_attention(const ShortAttention& args, cudaStream_t stream) {
  if (args.sequences == 0 || args.length == 0) return cudaSuccess;
  return dispatch_cuda(args.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    switch (args.head_dim) {
      case 8:
        return launch<T, 8>(args, stream);
      case 16:
        return launch<T, 16>(args, stream);
      case 32:
        return launch<T, 32>(args, stream);
      case 64:
        return launch<T, 64>(args, stream);
      default:
        return cudaErrorInvalidValue;
    }
  });
}

}  // namespace refract
