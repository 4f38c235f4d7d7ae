// A warp has a row, from the residual add to the split result.
#include "ops/device/reduce.cuh"
#include "ops/device/vector.cuh"
#include "ops/many/split_norm_kernel.h"

namespace refract {
namespace {

constexpr int kThreads = 128;

using Four = Vec<float, 4>;

__device__ __forceinline__ void store_split(__nv_bfloat16* to, int64_t width, const Four& x) {
  Vec<__nv_bfloat16, 4> high, low;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    high.at[j] = __float2bfloat16_rn(x.at[j]);
    low.at[j] = __float2bfloat16_rn(x.at[j] - __bfloat162float(high.at[j]));
  }
  store_vec<__nv_bfloat16, 4>(to, high);
  store_vec<__nv_bfloat16, 4>(to + width, high);
  store_vec<__nv_bfloat16, 4>(to + 2 * width, low);
}

// Lane l holds vectors l, l + 32, ... of four columns.
template <int kVecs>
__global__ void __launch_bounds__(kThreads) split_norm_kernel(SplitNorm a) {
  const int lane = static_cast<int>(threadIdx.x) % 32, vectors = static_cast<int>(a.columns) / 4;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= a.rows) return;
  const int64_t base = row * a.columns;
  Four s[kVecs];
  float total = 0.0f, squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + 32 * i;
    s[i] = v < vectors ? load_vec<float, 4>(a.x + base + 4 * v) : Four{};
  }
  if (a.residual != nullptr) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
      const int v = lane + 32 * i;
      if (v >= vectors) continue;
      const Four r = load_vec<float, 4>(a.residual + base + 4 * v);
#pragma unroll
      for (int j = 0; j < 4; ++j) s[i].at[j] += r.at[j];
      store_vec<float, 4>(a.sum + base + 4 * v, s[i]);
    }
  }
  float mean = 0.0f;
  if (!a.rms) {
#pragma unroll
    for (int i = 0; i < kVecs; ++i) {
#pragma unroll
      for (int j = 0; j < 4; ++j) total += s[i].at[j];
    }
    mean = warp_sum(total) / static_cast<float>(a.columns);
  }
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    if (lane + 32 * i >= vectors) continue;
#pragma unroll
    for (int j = 0; j < 4; ++j) squares += (s[i].at[j] - mean) * (s[i].at[j] - mean);
  }
  const float rstd = 1.0f / sqrtf(warp_sum(squares) / static_cast<float>(a.columns) + a.eps);
  const int64_t model = row / a.rows_each * a.columns;
  __nv_bfloat16* y = static_cast<__nv_bfloat16*>(a.y) + 3 * base;
#pragma unroll
  for (int i = 0; i < kVecs; ++i) {
    const int v = lane + 32 * i;
    if (v >= vectors) continue;
    Four out, w{{1.0f, 1.0f, 1.0f, 1.0f}}, b{};
    if (a.weight != nullptr) w = load_vec<float, 4>(a.weight + model + 4 * v);
    if (a.bias != nullptr) b = load_vec<float, 4>(a.bias + model + 4 * v);
#pragma unroll
    for (int j = 0; j < 4; ++j) out.at[j] = (s[i].at[j] - mean) * rstd * w.at[j] + b.at[j];
    store_split(y + 4 * v, a.columns, out);
  }
}

template <int kVecs>
cudaError_t launch(const SplitNorm& a, cudaStream_t stream) {
  constexpr int64_t kRows = kThreads / 32;
  split_norm_kernel<kVecs>
      <<<static_cast<unsigned>((a.rows + kRows - 1) / kRows), kThreads, 0, stream>>>(a);
  return cudaGetLastError();
}

}  // namespace

cudaError_t launch_split_norm(const SplitNorm& args, cudaStream_t stream) {
  if (args.rows == 0 || args.columns == 0) return cudaSuccess;
  switch ((args.columns + 127) / 128) {
    case 1:
      return launch<1>(args, stream);
    case 2:
      return launch<2>(args, stream);
    case 3:
      return launch<3>(args, stream);
    case 4:
      return launch<4>(args, stream);
    case 5:
    case 6:
      return launch<6>(args, stream);
    default:
      return launch<8>(args, stream);
  }
}

}  // namespace refract
