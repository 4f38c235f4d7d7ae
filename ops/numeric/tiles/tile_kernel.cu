#include "ops/device/normal.cuh"
#include "ops/device/vector.cuh"
#include "ops/numeric/tiles/tile_kernel.h"

namespace refract {
namespace {

constexpr int kThreads = 256;

// A thread has N neighbours of a row.
template <class T, int N>
__global__ void __launch_bounds__(kThreads) inputs_kernel(AnalogInputsArgs a) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= a.rows * a.columns) return;
  const int64_t row = i / a.columns, column = i - row * a.columns;
  const float* r = a.r + (a.shared ? 0 : row * a.tiles);
  Vec<T, N> v = load_vec<T, N>(static_cast<const T*>(a.x) + i);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const float per = __fmul_rn(__frcp_rn(r[(column + j) / a.tile_rows]), a.steps);
    const float u = __fmul_rn(to_float(v.at[j]), per);
    v.at[j] = from_float<T>(fminf(fmaxf(a.whole ? rintf(u) : u, -a.steps), a.steps));
  }
  store_vec(static_cast<T*>(a.u) + i, v);
}

__device__ __forceinline__ float converted(const AnalogCollectArgs& a, float z) {
  if (a.steps > 0) {
    const float whole = rintf(__fmul_rn(z, a.steps / a.bound));
    return __fmul_rn(fminf(fmaxf(whole, -a.steps), a.steps), a.bound / a.steps);
  }
  return a.bound > 0 ? fminf(fmaxf(z, -a.bound), a.bound) : z;
}

// A thread has the elements of one block of four normal numbers.
template <bool NOISE>
__global__ void __launch_bounds__(kThreads) collect_kernel(AnalogCollectArgs a) {
  const int64_t thread = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  const int64_t first = NOISE ? a.clock[1] : 0, count = a.rows * a.columns;
  const NormalPlace place(first, thread);
  if (place.element >= count) return;
  float xi[4] = {};
  if (NOISE) {
    const float4 drawn =
        normal_block(a.key, static_cast<uint64_t>(a.clock[0]), static_cast<uint64_t>(place.block));
    xi[0] = drawn.x, xi[1] = drawn.y, xi[2] = drawn.z, xi[3] = drawn.w;
  }
  const auto collected = [&](float y, float z, int64_t row, int64_t column, float noise) {
    if (a.scale != nullptr) z = __fmul_rn(z, a.scale[column]);
    if (NOISE) z += a.noise * noise;
    return y + __fmul_rn(converted(a, z), a.out[column]) * a.r[a.shared ? 0 : row];
  };
  int64_t row = place.element < 0 ? 0 : place.element / a.columns;
  int64_t column = place.element - row * a.columns;
  if ((first & 3) == 0 && a.columns % 4 == 0 && place.element + 4 <= count) {
    Vec<float, 4> y = load_vec(a.y + place.element);
    const Vec<float, 4> z = load_vec(a.z + place.element);
#pragma unroll
    for (int j = 0; j < 4; ++j) y.at[j] = collected(y.at[j], z.at[j], row, column + j, xi[j]);
    store_vec(a.y + place.element, y);
    return;
  }
#pragma unroll
  for (int j = 0; j < 4; ++j, ++column) {
    const int64_t i = place.element + j;
    if (column == a.columns) column = 0, ++row;
    if (i >= 0 && i < count) a.y[i] = collected(a.y[i], a.z[i], row, column, xi[j]);
  }
}

unsigned blocks_for(int64_t threads) {
  return static_cast<unsigned>((threads + kThreads - 1) / kThreads);
}

}  // namespace

cudaError_t launch_analog_inputs(const AnalogInputsArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    const int64_t count = a.rows * a.columns;
    if (a.columns % kVec<T> == 0 && aligned16(a.x, a.u)) {
      inputs_kernel<T, kVec<T>><<<blocks_for(count / kVec<T>), kThreads, 0, stream>>>(a);
    } else {
      inputs_kernel<T, 1><<<blocks_for(count), kThreads, 0, stream>>>(a);
    }
    return cudaGetLastError();
  });
}

cudaError_t launch_analog_collect(const AnalogCollectArgs& a, cudaStream_t stream) {
  const unsigned blocks = blocks_for(normal_threads(a.rows * a.columns));
  if (a.noise > 0) {
    collect_kernel<true><<<blocks, kThreads, 0, stream>>>(a);
  } else {
    collect_kernel<false><<<blocks, kThreads, 0, stream>>>(a);
  }
  return cudaGetLastError();
}

}  // namespace refract
