// All bound by memory: a thread handles four (AdamW, accumulate) or 16 bytes of (norm) neighbours
// with vector loads; the thread at the end does the remaining few one by one.
#include <cmath>

#include "ops/dense/optimizer/optimizer_kernel.h"
#include "ops/device/vector.cuh"

namespace refract {
namespace {

constexpr int kThreads = 256;
constexpr int kGroup = 4;  // elements per thread: 16 bytes of fp32

unsigned blocks_for(int64_t n, int64_t per_block) {
  return static_cast<unsigned>((n + per_block - 1) / per_block);
}

// The scalars of one step, in the order in which torch.optim.AdamW rounds them.
struct Step {
  float multiplier, decay, step_size, root_correction;
};

__device__ __forceinline__ void update(float& w, float& m, float& v, float g, bool decays,
                                       const Step& step, const AdamWScalars& s) {
  g *= step.multiplier;
  m = m + s.beta1_rest * (g - m);
  v = v * s.beta2 + s.beta2_rest * g * g;
  const float denominator = sqrtf(v) / step.root_correction + s.eps;
  w = (decays ? w * step.decay : w) - step.step_size * (m / denominator);
}

// G: the gradients' type, P: the compute weights'.
template <class G, class P, bool kCompute>
__global__ void __launch_bounds__(kThreads)
    adamw_kernel(float* __restrict__ master, P* __restrict__ compute, G* __restrict__ grads,
                 float* __restrict__ exp_avg, float* __restrict__ exp_avg_sq, int64_t n,
                 int64_t n_decay, const float* __restrict__ hyper,
                 const float* __restrict__ control, AdamWScalars s) {
  if (control[1] != 0.0f) return;
  const float lr = hyper[0];
  const Step step{control[0], 1.0f - lr * s.weight_decay, lr / hyper[1], sqrtf(hyper[2])};
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kGroup;
  if (i + kGroup <= n) {
    auto w = load_vec<float, kGroup>(master + i);
    auto m = load_vec<float, kGroup>(exp_avg + i);
    auto v = load_vec<float, kGroup>(exp_avg_sq + i);
    auto g = load_vec<G, kGroup>(grads + i);
    Vec<P, kGroup> p;
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      update(w.at[k], m.at[k], v.at[k], to_float(g.at[k]), i + k < n_decay, step, s);
      p.at[k] = from_float<P>(w.at[k]);
      g.at[k] = from_float<G>(0.0f);
    }
    store_vec(master + i, w);
    store_vec(exp_avg + i, m);
    store_vec(exp_avg_sq + i, v);
    if constexpr (kCompute) store_vec(compute + i, p);
    if (s.zero_grads) store_vec(grads + i, g);
    return;
  }
  for (int64_t j = i; j < n; ++j) {
    float w = master[j], m = exp_avg[j], v = exp_avg_sq[j];
    update(w, m, v, to_float(grads[j]), j < n_decay, step, s);
    master[j] = w;
    exp_avg[j] = m;
    exp_avg_sq[j] = v;
    if constexpr (kCompute) compute[j] = from_float<P>(w);
    if (s.zero_grads) grads[j] = from_float<G>(0.0f);
  }
}

template <class G, class P, bool kCompute>
cudaError_t run_adamw(const AdamWArrays& a, const AdamWScalars& s, cudaStream_t stream) {
  adamw_kernel<G, P, kCompute><<<blocks_for(a.n, kThreads * kGroup), kThreads, 0, stream>>>(
      a.master, static_cast<P*>(a.compute), static_cast<G*>(a.grads), a.exp_avg, a.exp_avg_sq, a.n,
      a.n_decay, a.hyper, a.control, s);
  return cudaGetLastError();
}

constexpr int kNormThreads = 512;
constexpr int kMaxPartials = 1024;
constexpr int64_t kNormPerBlock = kNormThreads * 32;

// Sums `x` over the block in a fixed tree; the result is thread 0's.
template <int kSize>
__device__ double block_sum_double(double x) {
  __shared__ double shared[kSize];
  shared[threadIdx.x] = x;
  for (int width = kSize / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) shared[threadIdx.x] += shared[threadIdx.x + width];
  }
  return shared[0];
}

template <class T>
__global__ void __launch_bounds__(kNormThreads)
    squares_kernel(const T* __restrict__ x, int64_t n, double* __restrict__ partial) {
  constexpr int kWidth = kVec<T>;
  const int64_t vectors = n / kWidth;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kNormThreads;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * kNormThreads + threadIdx.x;
  // A vector's squares are added in fp32, the vectors in float64.
  double sum = 0.0;
#pragma unroll 4
  for (int64_t i = first; i < vectors; i += stride) {
    const auto v = load_vec(x + i * kWidth);
    float part = 0.0f;
#pragma unroll
    for (int k = 0; k < kWidth; ++k) {
      const float value = to_float(v.at[k]);
      part += value * value;
    }
    sum += part;
  }
  const int64_t tail = vectors * kWidth + first;
  if (tail < n) {
    const float value = to_float(x[tail]);
    sum += static_cast<double>(value) * value;
  }
  sum = block_sum_double<kNormThreads>(sum);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kNormThreads)
    norm_kernel(const double* partial, int partials, float* norm) {
  double sum = 0.0;
  for (int i = threadIdx.x; i < partials; i += kNormThreads) sum += partial[i];
  sum = block_sum_double<kNormThreads>(sum);
  if (threadIdx.x == 0) *norm = static_cast<float>(sqrt(sum));
}

__global__ void step_control_kernel(float* control, const float* norm, const float* loss,
                                    float max_norm, const int64_t* step) {
  const float n = *norm;
  const float ratio = max_norm / (n + 1e-6f);
  // Not fminf: a NaN must not become a multiplier of one.
  control[0] = max_norm > 0.0f ? (ratio > 1.0f ? 1.0f : ratio) : 1.0f;
  if (control[1] == 0.0f && !(isfinite(n) && isfinite(*loss))) {
    control[1] = 1.0f;
    control[2] = static_cast<float>(*step);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    accumulate_kernel(float* __restrict__ sum, T* __restrict__ part, int64_t n) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kGroup;
  if (i + kGroup <= n) {
    auto s = load_vec<float, kGroup>(sum + i);
    auto p = load_vec<T, kGroup>(part + i);
#pragma unroll
    for (int k = 0; k < kGroup; ++k) {
      s.at[k] += to_float(p.at[k]);
      p.at[k] = from_float<T>(0.0f);
    }
    store_vec(sum + i, s);
    store_vec(part + i, p);
    return;
  }
  for (int64_t j = i; j < n; ++j) {
    sum[j] += to_float(part[j]);
    part[j] = from_float<T>(0.0f);
  }
}

}  // namespace

cudaError_t launch_adamw(const AdamWArrays& a, const AdamWScalars& s, cudaStream_t stream) {
  if (a.n == 0) return cudaSuccess;
  if (!aligned16(a.master, static_cast<char*>(a.compute), static_cast<char*>(a.grads), a.exp_avg,
                 a.exp_avg_sq)) {
    return cudaErrorMisalignedAddress;
  }
  return dispatch_cuda(a.grad_dtype, [&](auto grad) {
    using G = typename decltype(grad)::type;
    if (a.compute == nullptr) return run_adamw<G, float, false>(a, s, stream);
    return dispatch_cuda(a.compute_dtype, [&](auto compute) {
      return run_adamw<G, typename decltype(compute)::type, true>(a, s, stream);
    });
  });
}

int norm_partials(int64_t n) {
  const int64_t blocks = (n + kNormPerBlock - 1) / kNormPerBlock;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kMaxPartials ? kMaxPartials : blocks);
}

cudaError_t launch_global_norm(Dtype dtype, const void* flat, int64_t n, double* partial,
                               float* norm, cudaStream_t stream) {
  if (!aligned16(static_cast<const char*>(flat))) return cudaErrorMisalignedAddress;
  const int partials = norm_partials(n);
  const cudaError_t error = dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    squares_kernel<T>
        <<<partials, kNormThreads, 0, stream>>>(static_cast<const T*>(flat), n, partial);
    return cudaGetLastError();
  });
  if (error != cudaSuccess) return error;
  norm_kernel<<<1, kNormThreads, 0, stream>>>(partial, partials, norm);
  return cudaGetLastError();
}

cudaError_t launch_step_control(float* control, const float* norm, const float* loss,
                                float max_norm, const int64_t* step, cudaStream_t stream) {
  step_control_kernel<<<1, 1, 0, stream>>>(control, norm, loss, max_norm, step);
  return cudaGetLastError();
}

cudaError_t launch_accumulate(float* sum, Dtype dtype, void* part, int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  if (!aligned16(sum, static_cast<char*>(part))) return cudaErrorMisalignedAddress;
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    accumulate_kernel<T>
        <<<blocks_for(n, kThreads * kGroup), kThreads, 0, stream>>>(sum, static_cast<T*>(part), n);
    return cudaGetLastError();
  });
}

}  // namespace refract
