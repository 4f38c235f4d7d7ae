// A thread has 16 bytes of elements; each element draws blocks of its own, or, where flips are
// rare, the thread one for all of them.
#include <type_traits>

#include "ops/device/vector.cuh"
#include "ops/numeric/bit_flip_kernel.h"

namespace refract {
namespace {

constexpr int kThreads = 256;

template <class T>
constexpr numeric::FlipType type_of() {
  return std::is_same_v<T, float>           ? numeric::kFlipFloat
         : std::is_same_v<T, __nv_bfloat16> ? numeric::kFlipBfloat16
                                            : numeric::kFlipHalf;
}

template <class T>
union Bits {
  std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t> bits;
  T value;
  __device__ Bits() : bits(0) {}
};

// BLOCKS: Philox blocks of an element, so that its words stay in registers.
template <class T, int BLOCKS>
__device__ __forceinline__ T flipped(T x, const BitFlipArgs& a, uint64_t step, uint64_t index) {
  uint32_t words[4 * BLOCKS];
#pragma unroll
  for (int b = 0; b < BLOCKS; ++b) {
    const PhiloxBlock block = noise_block(a.key, step, index * BLOCKS + b);
#pragma unroll
    for (int w = 0; w < 4; ++w) words[4 * b + w] = block.word[w];
  }
  constexpr numeric::FlipType type = type_of<T>();
  constexpr int kMost = BLOCKS * 128 / type.bits;
  uint32_t chain = ~0u, mask = 0;
#pragma unroll
  for (int n = 1; n <= kMost; ++n) {  // flip_mask() with a length that the compiler knows
    const int at = n - 1;
    chain &=
        type.bits == 32 ? words[at] : (at % 2 != 0 ? words[at / 2] >> 16 : words[at / 2] & 0xffffu);
    if (n == a.flips.exponent) mask |= chain & type.sign_and_exponent;
    if (n == a.flips.fraction) mask |= chain & type.fraction;
  }
  Bits<T> y;
  y.value = x;
  y.bits ^= mask;
  return y.value;
}

template <class T, int BLOCKS>
__global__ void __launch_bounds__(kThreads) flip_kernel(BitFlipArgs a, bool whole) {
  constexpr int N = kVec<T>;
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= a.count) return;
  const uint64_t step = static_cast<uint64_t>(a.clock[0]);
  const uint64_t first = static_cast<uint64_t>(a.clock[1] + i);
  const T* x = static_cast<const T*>(a.x) + i;
  const T* grad = a.grad == nullptr ? nullptr : static_cast<const T*>(a.grad) + i;
  T* y = static_cast<T*>(a.y) + i;
  const int n = static_cast<int>(a.count - i < N ? a.count - i : N);
  Vec<T, N> in{}, other{}, out;
  if (whole) {
    in = load_vec(x);
    if (grad != nullptr) other = load_vec(grad);
  } else {
    for (int j = 0; j < n; ++j) {
      in.at[j] = x[j];
      if (grad != nullptr) other.at[j] = grad[j];
    }
  }
#pragma unroll
  for (int j = 0; j < N; ++j) {
    const T value = BLOCKS == 0 ? in.at[j] : flipped < T,
            BLOCKS == 0 ? 1 : BLOCKS > (in.at[j], a, step, first + j);
    const bool keep = is_kept(a.flips, to_float(value));
    out.at[j] = !keep ? from_float<T>(0.0f) : grad == nullptr ? value : other.at[j];
  }
  if (whole) {
    store_vec(y, out);
  } else {
    for (int j = 0; j < n; ++j) y[j] = out.at[j];
  }
}

__device__ __forceinline__ numeric::GroupMask group_mask(const BitFlipArgs& a, uint64_t step,
                                                         uint64_t group) {
  numeric::GroupMask mask{};
  for (int process = 0; process < a.rare.processes; ++process) {
    const PhiloxBlock block = noise_block(a.key, step, numeric::dart_block(process, 0, group));
    throw_darts(a.rare, process, block.word, a.key, step, group, mask);
  }
  return mask;
}

// The masks of 128 bits from the group's bit `offset` on, which end in the next group.
__device__ __noinline__ numeric::GroupMask straddling_mask(const BitFlipArgs& a, uint64_t step,
                                                           uint64_t group, int offset) {
  const numeric::GroupMask one = group_mask(a, step, group), next = group_mask(a, step, group + 1);
  uint32_t both[8];
  for (int w = 0; w < 4; ++w) both[w] = one.word[w];
  for (int w = 0; w < 4; ++w) both[4 + w] = next.word[w];
  numeric::GroupMask mask{};
  const int words = offset / 32, bits = offset % 32;
  for (int w = 0; w < 4; ++w) {
    mask.word[w] = both[w + words] >> bits;
    if (bits != 0) mask.word[w] |= both[w + words + 1] << (32 - bits);
  }
  return mask;
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    rare_flip_kernel(const __grid_constant__ BitFlipArgs a, bool whole) {
  constexpr int N = kVec<T>;
  constexpr int kBits = 8 * static_cast<int>(sizeof(T));
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= a.count) return;
  const uint64_t step = static_cast<uint64_t>(a.clock[0]);
  const uint64_t first = static_cast<uint64_t>(a.clock[1] + i);
  const T* x = static_cast<const T*>(a.x) + i;
  const T* grad = a.grad == nullptr ? nullptr : static_cast<const T*>(a.grad) + i;
  T* y = static_cast<T*>(a.y) + i;
  const int n = static_cast<int>(a.count - i < N ? a.count - i : N);
  Vec<T, N> in{}, other{}, out;
  if (whole) {
    in = load_vec(x);
    if (grad != nullptr) other = load_vec(grad);
  } else {
    for (int j = 0; j < n; ++j) {
      in.at[j] = x[j];
      if (grad != nullptr) other.at[j] = grad[j];
    }
  }
  const int skipped = static_cast<int>(first % N);
  const numeric::GroupMask mask = skipped == 0
                                      ? group_mask(a, step, first / N)
                                      : straddling_mask(a, step, first / N, skipped * kBits);
#pragma unroll
  for (int j = 0; j < N; ++j) {
    Bits<T> value;
    value.value = in.at[j];
    value.bits ^= kBits == 32 ? mask.word[j] : mask.word[j / 2] >> (j % 2 != 0 ? 16 : 0);
    const bool keep = is_kept(a.flips, to_float(value.value));
    out.at[j] = !keep ? from_float<T>(0.0f) : grad == nullptr ? value.value : other.at[j];
  }
  if (whole) {
    store_vec(y, out);
  } else {
    for (int j = 0; j < n; ++j) y[j] = out.at[j];
  }
}

template <class T, int BLOCKS>
void launch(const BitFlipArgs& a, cudaStream_t stream) {
  const int64_t each = kThreads * kVec<T>;
  const bool whole = a.count % kVec<T> == 0 && aligned16(a.x, a.grad, a.y);
  flip_kernel<T, BLOCKS>
      <<<static_cast<unsigned>((a.count + each - 1) / each), kThreads, 0, stream>>>(a, whole);
}

template <class T>
void launch_rare(const BitFlipArgs& a, cudaStream_t stream) {
  const int64_t each = kThreads * kVec<T>;
  const bool whole = a.count % kVec<T> == 0 && aligned16(a.x, a.grad, a.y);
  rare_flip_kernel<T>
      <<<static_cast<unsigned>((a.count + each - 1) / each), kThreads, 0, stream>>>(a, whole);
}

template <class T>
void launch(const BitFlipArgs& a, cudaStream_t stream) {
  if (is_rare(a.flips)) return launch_rare<T>(a, stream);
  switch (blocks_per_element(type_of<T>(), a.flips)) {
    case 0:
      return launch<T, 0>(a, stream);
    case 1:
      return launch<T, 1>(a, stream);
    case 2:
      return launch<T, 2>(a, stream);
    case 3:
      return launch<T, 3>(a, stream);
    case 4:
      return launch<T, 4>(a, stream);
    case 5:
      return launch<T, 5>(a, stream);
    default:
      return launch<T, 6>(a, stream);
  }
}

}  // namespace

cudaError_t launch_bit_flip(const BitFlipArgs& a, Dtype dtype, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    launch<typename decltype(tag)::type>(a, stream);
    return cudaGetLastError();
  });
}

}  // namespace refract
