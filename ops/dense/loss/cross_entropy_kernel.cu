// One block per row of logits. A row is read once: cp.async brings it into shared memory (100 KB
// for GPT-2's vocabulary in bf16, so two blocks share a multiprocessor and one loads while the
// other computes), each thread keeps a running maximum and sum over the vectors that it loaded
// itself, and after the block's reduction it writes the gradient over them. A row that does not fit
// is read twice.
#include <climits>
#include <cmath>

#include "ops/dense/loss/cross_entropy_kernel.h"
#include "ops/device/reduce.cuh"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kThreads = 512;
constexpr int kParts = 4;  // a row arrives in this many groups; the first is worked on at once
constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLowest = -1e30f;  // below every logit, and finite: (lowest - lowest) is 0
constexpr int64_t kIgnored = -100;

__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ void copy_async16(void* shared, const void* global) {
  const auto address = static_cast<unsigned>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(global) : "memory");
}
__device__ __forceinline__ void commit_async() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wait_async() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Running maximum m and sum of exp(x - m).
struct Online {
  float m = kLowest, s = 0.0f;

  template <class T, int N>
  __device__ __forceinline__ void add(const Vec<T, N>& v, int valid) {
    float x[N];
    float top = kLowest;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      x[i] = i < valid ? to_float(v.at[i]) : -INFINITY;
      top = fmaxf(top, x[i]);
    }
    if (top > m) {
      s *= exp2_fast((m - top) * kLog2E);
      m = top;
    }
#pragma unroll
    for (int i = 0; i < N; ++i) s += exp2_fast((x[i] - m) * kLog2E);
  }
};

template <class T>
__device__ __forceinline__ void store_zero(T* p) {
  *reinterpret_cast<uint4*>(p) = make_uint4(0, 0, 0, 0);
}

__device__ __forceinline__ int64_t read_target(const void* targets, bool wide, int64_t row) {
  return wide ? static_cast<const int64_t*>(targets)[row]
              : static_cast<const int32_t*>(targets)[row];
}

// How many of vector i's elements are classes.
template <class T>
__device__ __forceinline__ int valid_in(int i, int classes) {
  return min(classes - i * kVec<T>, kVec<T>);
}

// Whether a class before the target has the target's logit, which is the maximum (rare).
template <class T>
__device__ bool beaten_by_lower(const T* row, int target, float top) {
  bool found = false;
  for (int i = threadIdx.x; i * kVec<T> < target; i += kThreads) {
    const auto v = load_vec(row + i * kVec<T>);
#pragma unroll
    for (int k = 0; k < kVec<T>; ++k) {
      found |= i * kVec<T> + k < target && to_float(v.at[k]) == top;
    }
  }
  return __syncthreads_or(found);
}

// Loads the row in kParts groups of vectors and adds each to `online` as it arrives. A thread
// touches only what it loaded itself, so no barrier is needed here.
template <class T>
__device__ __forceinline__ void load_row(const T* row, T* cache, int vectors, int classes,
                                         Online& online) {
  // Vectors per thread and part, so that every thread has the same parts.
  const int per_part = (vectors + kThreads * kParts - 1) / (kThreads * kParts);
#pragma unroll
  for (int part = 0; part < kParts; ++part) {
    for (int k = part * per_part; k < (part + 1) * per_part; ++k) {
      const int i = k * kThreads + threadIdx.x;
      if (i < vectors) copy_async16(cache + i * kVec<T>, row + i * kVec<T>);
    }
    commit_async();
  }
  auto consume = [&](int part) {
    for (int k = part * per_part; k < (part + 1) * per_part; ++k) {
      const int i = k * kThreads + threadIdx.x;
      if (i < vectors) online.add(load_vec(cache + i * kVec<T>), valid_in<T>(i, classes));
    }
  };
  static_assert(kParts == 4, "one wait per part");
  wait_async<3>();
  consume(0);
  wait_async<2>();
  consume(1);
  wait_async<1>();
  consume(2);
  wait_async<0>();
  consume(3);
}

template <class T, bool kCached>
__global__ void __launch_bounds__(kThreads, 2)
    cross_entropy_rows(T* logits, int64_t stride, int classes, const void* targets, bool wide,
                       bool gradient, float* loss, int32_t* correct) {
  extern __shared__ uint4 shared[];
  __shared__ float scratch[32];
  T* cache = reinterpret_cast<T*>(shared);
  const int64_t r = blockIdx.x;
  T* row = logits + r * stride;
  const int all = static_cast<int>(stride / kVec<T>);
  const int vectors = (classes + kVec<T> - 1) / kVec<T>;
  const int64_t wide_target = read_target(targets, wide, r);
  if (wide_target < 0 || wide_target >= classes) {
    if (threadIdx.x == 0) {
      // A target that is no class is a fault of the data: NaN stops the run at its next look.
      loss[r] = wide_target == kIgnored ? 0.0f : NAN;
      correct[r] = 0;
    }
    for (int i = threadIdx.x; gradient && i < all; i += kThreads) store_zero(row + i * kVec<T>);
    return;
  }
  const int target = static_cast<int>(wide_target);

  Online online;
  if constexpr (kCached) {
    load_row(row, cache, vectors, classes, online);
  } else {
    for (int i = threadIdx.x; i < vectors; i += kThreads) {
      online.add(load_vec(row + i * kVec<T>), valid_in<T>(i, classes));
    }
  }
  const T* source = kCached ? cache : row;
  // The reductions' barriers also make the whole cached row visible to every thread.
  const float top = block_max<kThreads>(online.m, scratch);
  const float sum = block_sum<kThreads>(online.s * exp2_fast((online.m - top) * kLog2E), scratch);
  const float hit = to_float(source[target]);
  const float log_sum = logf(sum);
  const bool best = hit == top && !beaten_by_lower(source, target, top);
  if (threadIdx.x == 0) {
    loss[r] = (top - hit) + log_sum;
    correct[r] = best;
  }
  if (!gradient) return;
  if constexpr (!kCached) __syncthreads();  // every thread has read the target's logit
  const float shift = top + log_sum;
  for (int i = threadIdx.x; i < all; i += kThreads) {
    if (i >= vectors) {
      store_zero(row + i * kVec<T>);
      continue;
    }
    auto v = load_vec(source + i * kVec<T>);
    const int valid = valid_in<T>(i, classes);
    const int mine = target - i * kVec<T>;
#pragma unroll
    for (int k = 0; k < kVec<T>; ++k) {
      const float p = exp2_fast((to_float(v.at[k]) - shift) * kLog2E);
      v.at[k] = from_float<T>(k < valid ? p - (k == mine ? 1.0f : 0.0f) : 0.0f);
    }
    store_vec(row + i * kVec<T>, v);
  }
}

constexpr int kSumThreads = 1024;

__global__ void __launch_bounds__(kSumThreads)
    cross_entropy_sum(const float* loss, const int32_t* correct, int64_t n, float* loss_sum,
                      int64_t* num_correct) {
  __shared__ double losses[kSumThreads];
  __shared__ long long corrects[kSumThreads];
  double sum = 0.0;
  long long count = 0;
  for (int64_t i = threadIdx.x; i < n; i += kSumThreads) {
    sum += loss[i];
    count += correct[i];
  }
  losses[threadIdx.x] = sum;
  corrects[threadIdx.x] = count;
  for (int width = kSumThreads / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) {
      losses[threadIdx.x] += losses[threadIdx.x + width];
      corrects[threadIdx.x] += corrects[threadIdx.x + width];
    }
  }
  if (threadIdx.x == 0) {
    *loss_sum = static_cast<float>(losses[0]);
    *num_correct = corrects[0];
  }
}

template <class From, class To>
__global__ void __launch_bounds__(256)
    scale_cast_kernel(const From* in, To* out, int64_t n, const float* scale) {
  constexpr int kWidth = 8;
  const float s = *scale;
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * kWidth;
  if (begin + kWidth <= n) {
    Vec<From, kWidth> v;
    Vec<To, kWidth> o;
    // 8 elements are one or two 16-byte accesses.
    constexpr int kIn = kVec<From> < kWidth ? kVec<From> : kWidth;
    constexpr int kOut = kVec<To> < kWidth ? kVec<To> : kWidth;
#pragma unroll
    for (int i = 0; i < kWidth; i += kIn) {
      const auto part = load_vec<From, kIn>(in + begin + i);
#pragma unroll
      for (int k = 0; k < kIn; ++k) v.at[i + k] = part.at[k];
    }
#pragma unroll
    for (int i = 0; i < kWidth; i += kOut) {
      Vec<To, kOut> part;
#pragma unroll
      for (int k = 0; k < kOut; ++k) part.at[k] = from_float<To>(to_float(v.at[i + k]) * s);
      store_vec(out + begin + i, part);
    }
  } else {
    for (int64_t i = begin; i < n; ++i) out[i] = from_float<To>(to_float(in[i]) * s);
  }
}

template <class T>
cudaError_t launch_rows(const CrossEntropyRows& a, cudaStream_t stream) {
  int device = 0, limit = 0;
  if (auto e = cudaGetDevice(&device)) return e;
  if (auto e = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device)) {
    return e;
  }
  constexpr int64_t kStatic = 1024;  // scratch and the system's share
  const int64_t vectors = (a.classes + kVec<T> - 1) / kVec<T>;
  const int64_t bytes = vectors * 16;
  T* logits = static_cast<T*>(a.logits);
  const auto grid = static_cast<unsigned>(a.rows);
  const int classes = static_cast<int>(a.classes);
  if (bytes + kStatic <= limit) {
    auto kernel = cross_entropy_rows<T, true>;
    if (auto e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                      static_cast<int>(bytes))) {
      return e;
    }
    kernel<<<grid, kThreads, bytes, stream>>>(logits, a.stride, classes, a.targets, a.wide_targets,
                                              a.gradient, a.loss, a.correct);
  } else {
    cross_entropy_rows<T, false><<<grid, kThreads, 0, stream>>>(
        logits, a.stride, classes, a.targets, a.wide_targets, a.gradient, a.loss, a.correct);
  }
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_cross_entropy_rows(const CrossEntropyRows& args, cudaStream_t stream) {
  if (args.rows == 0) return cudaSuccess;
  if (args.stride > INT_MAX || args.rows > INT_MAX || args.stride % 8 != 0) {
    return cudaErrorInvalidValue;
  }
  return dispatch_cuda(args.dtype, [&](auto tag) {
    return launch_rows<typename decltype(tag)::type>(args, stream);
  });
}

cudaError_t launch_cross_entropy_sum(const float* loss, const int32_t* correct, int64_t n,
                                     float* loss_sum, int64_t* num_correct, cudaStream_t stream) {
  cross_entropy_sum<<<1, kSumThreads, 0, stream>>>(loss, correct, n, loss_sum, num_correct);
  return cudaGetLastError();
}

cudaError_t launch_scale_cast(Dtype from, const void* in, Dtype to, void* out, int64_t n,
                              const float* scale, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const auto grid = static_cast<unsigned>((n + 256 * 8 - 1) / (256 * 8));
  return dispatch_cuda(from, [&](auto a) {
    return dispatch_cuda(to, [&](auto b) {
      using From = typename decltype(a)::type;
      using To = typename decltype(b)::type;
      scale_cast_kernel<From, To>
          <<<grid, 256, 0, stream>>>(static_cast<const From*>(in), static_cast<To*>(out), n, scale);
      return cudaGetLastError();
    });
  });
}

}  // namespace refract
