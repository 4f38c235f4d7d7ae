// The pass over a product of codes: value, noise, level, bias, output and range. A thread has eight
// columns of one member, whose terms it keeps in registers, and walks down the rows of its block; a
// warp covers 256 columns of one row, so that loads and stores are whole lines.
#include "ops/optical/device.cuh"
#include "ops/optical/product_kernel.h"

namespace refract {
namespace {

using optical::kThreads;
using optical::kWarps;
using optical::Range;

constexpr int kColumns = 8;                  // per thread
constexpr int kTile = 32 * kColumns;         // per block
constexpr int kPartsPerMultiprocessor = 12;  // blocks

template <class T>
struct ProductOf {
  using type = __half;
};
template <>
struct ProductOf<float> {
  using type = float;
};

template <class T>
__device__ __forceinline__ Vec<T, kColumns> load_columns(const T* p) {
  Vec<T, kColumns> v;
  constexpr int N = kVec<T>;
#pragma unroll
  for (int i = 0; i < kColumns; i += N) {
    const Vec<T, N> part = load_vec(p + i);
#pragma unroll
    for (int j = 0; j < N; ++j) v.at[i + j] = part.at[j];
  }
  return v;
}
template <class T>
__device__ __forceinline__ void store_columns(T* p, const Vec<T, kColumns>& v) {
  constexpr int N = kVec<T>;
#pragma unroll
  for (int i = 0; i < kColumns; i += N) {
    Vec<T, N> part;
#pragma unroll
    for (int j = 0; j < N; ++j) part.at[j] = v.at[i + j];
    store_vec(p + i, part);
  }
}

// Where a block is: blockIdx.x = batch and rows, blockIdx.y = member and columns.
struct Place {
  int member;
  int64_t batch, row, row_end;  // rows within the batch
  int64_t column, column_end;   // within all columns; of this thread, of the member
  int64_t first_part, parts;    // of the member, in `seen`
};

__device__ __forceinline__ int64_t tiles_of(const OpticalMembers& m, int member) {
  return (m.begin[member + 1] - m.begin[member] + kTile - 1) / kTile;
}

__device__ __forceinline__ Place place_of(const OpticalOutputArgs& a, int chunks) {
  Place p;
  int64_t tile = blockIdx.y, first_tile = 0;
  for (p.member = 0; p.member + 1 < a.members.count; ++p.member) {
    const int64_t tiles = tiles_of(a.members, p.member);
    if (tile < tiles) break;
    tile -= tiles;
    first_tile += tiles;
  }
  p.first_part = first_tile * gridDim.x;
  p.parts = tiles_of(a.members, p.member) * gridDim.x;
  p.column = a.members.begin[p.member] + tile * kTile + threadIdx.x % 32 * kColumns;
  p.column_end = a.members.begin[p.member + 1];
  p.batch = blockIdx.x / chunks;
  const int64_t chunk = blockIdx.x % chunks, rows = (a.rows + chunks - 1) / chunks;
  p.row = chunk * rows + threadIdx.x / 32;
  p.row_end = (chunk + 1) * rows < a.rows ? (chunk + 1) * rows : a.rows;
  return p;
}

// gain, the rows' gain, and what each column adds.
struct Terms {
  float gain, row_gain;
  float column[kColumns];
};

__device__ __forceinline__ Terms terms_of(const OpticalOutputArgs& a, const Place& p) {
  const Range row = optical::load_range(a.row_used);
  const Range column = optical::load_range(a.column_used + 2 * p.member);
  const optical::Mix mix =
      optical::mix(optical::quantizer(row, a.levels, 0.0f),
                   optical::quantizer(column, a.levels, a.lut_min), static_cast<float>(a.inner));
  Terms t{mix.gain, mix.row_gain, {}};
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int64_t c = p.column + j;
    const float sum = c < p.column_end ? a.column_sums[p.batch * a.columns + c] : 0.0f;
    t.column[j] = optical::add(optical::mul(mix.column_gain, sum), mix.constant);
  }
  return t;
}

__device__ __forceinline__ float value_of(const Terms& t, float product, float row, int j) {
  return optical::add(optical::mul(t.gain, product), optical::add(row, t.column[j]));
}

template <class T, bool kAligned>
__global__ void __launch_bounds__(kThreads, 4)
    output_kernel(OpticalOutputArgs a, const float* unset, float* seen, int chunks) {
  using P = typename ProductOf<T>::type;
  const Place p = place_of(a, chunks);
  const float* unset_parts = unset == nullptr ? nullptr : unset + 2 * p.first_part;
  const Range used = optical::effective_range(a.members.range[p.member], unset_parts, p.parts);
  const optical::Quantizer q = optical::quantizer(used, a.levels, 0.0f);
  const Terms t = terms_of(a, p);
  float bias[kColumns];
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const bool has = a.bias != nullptr && p.column + j < p.column_end;
    bias[j] = has ? to_float(static_cast<const T*>(a.bias)[p.column + j]) : 0.0f;
  }
  const int64_t width = p.column_end - a.members.begin[p.member];
  const optical::Now now = optical::now_of(a.clock);
  const uint64_t first =
      now.slice * static_cast<uint64_t>(a.batches * a.rows / a.slices * width) +
      static_cast<uint64_t>(p.batch * a.rows * width + p.column - a.members.begin[p.member]);
  const P* product = static_cast<const P*>(a.product) + p.batch * a.rows * a.columns + p.column;
  T* y = static_cast<T*>(a.y) + p.batch * a.rows * a.columns + p.column;
  const float* row_sums = a.row_sums + p.batch * a.rows;
  Range r = optical::unset_range();

  auto finish = [&](float v, float xi, int j) {
    const float out =
        optical::add(optical::plain_value(q, optical::noisy_level(q, v, xi)), bias[j]);
    r = optical::include(r, a.clipped ? out : v);
    return from_float<T>(out);
  };
  if (p.column < p.column_end) {
    if constexpr (kAligned) {  // a thread's columns are all there, and its noise whole blocks
      int64_t row = p.row;
      Vec<P, kColumns> next;
      if (row < p.row_end) next = load_columns(product + row * a.columns);
      for (; row < p.row_end; row += kWarps) {
        const Vec<P, kColumns> v = next;
        if (row + kWarps < p.row_end) next = load_columns(product + (row + kWarps) * a.columns);
        const float row_term = optical::mul(t.row_gain, row_sums[row]);
        const uint64_t block = (first + static_cast<uint64_t>(row * width)) >> 2;
        Vec<T, kColumns> out;
#pragma unroll
        for (int half = 0; half < kColumns / 4; ++half) {
          PhiloxBlock drawn;
          if (a.draws) drawn = philox(a.key[p.member], now.step, block + half);
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const int j = 4 * half + k;
            const float xi = a.draws ? optical::noise_of(drawn.word[k]) : a.shared;
            out.at[j] = finish(value_of(t, to_float(v.at[j]), row_term, j), xi, j);
          }
        }
        store_columns(y + row * a.columns, out);
      }
    } else {
      for (int64_t row = p.row; row < p.row_end; row += kWarps) {
        const float row_term = optical::mul(t.row_gain, row_sums[row]);
        const uint64_t index = first + static_cast<uint64_t>(row * width);
#pragma unroll
        for (int j = 0; j < kColumns; ++j) {
          if (p.column + j >= p.column_end) break;
          const float xi = a.draws ? optical::noise_of(philox_word(a.key[p.member], now.step,
                                                                   index + static_cast<uint64_t>(j)))
                                   : a.shared;
          const float v = value_of(t, to_float(product[row * a.columns + j]), row_term, j);
          y[row * a.columns + j] = finish(v, xi, j);
        }
      }
    }
  }
  if (!a.train) return;

  // The last block to come here moves all ranges: the others have read them.
  r = optical::block_range(r);
  __shared__ bool last;
  if (threadIdx.x == 0) {
    optical::store_range(seen + 2 * (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x), r);
    __threadfence();
    last = atomicAdd(a.ticket, 1u) == gridDim.x * gridDim.y - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  int64_t part = 0;
  for (int m = 0; m < a.members.count; ++m) {
    const int64_t parts = tiles_of(a.members, m) * gridDim.x;
    Range from = optical::load_range(a.members.range[m]);
    if (a.clipped && !optical::is_set(from) && unset != nullptr) {
      from = optical::merge_parts(unset + 2 * part, parts);
    }
    const Range merged = optical::merge_parts(seen + 2 * part, parts);
    if (threadIdx.x == 0) {
      optical::store_range(a.members.range[m], optical::moved(from, merged, a.smooth));
    }
    part += parts;
  }
  for (int i = 0; i < a.moves; ++i) {
    const Range merged = optical::merge_parts(a.move[i].seen, kOpticalParts);
    if (threadIdx.x == 0) {
      const Range from = optical::load_range(a.move[i].range);
      optical::store_range(a.move[i].range, optical::moved(from, merged, a.smooth));
    }
  }
}

// For unset ranges: what the output will be quantized from.
template <class T>
__global__ void __launch_bounds__(kThreads)
    output_seen_kernel(OpticalOutputArgs a, float* unset, int chunks) {
  using P = typename ProductOf<T>::type;
  const Place p = place_of(a, chunks);
  if (optical::is_set(optical::load_range(a.members.range[p.member]))) return;
  const Terms t = terms_of(a, p);
  const P* product = static_cast<const P*>(a.product) + p.batch * a.rows * a.columns + p.column;
  Range r = optical::unset_range();
  for (int64_t row = p.row; row < p.row_end; row += kWarps) {
    const float row_term = optical::mul(t.row_gain, a.row_sums[p.batch * a.rows + row]);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if (p.column + j >= p.column_end) break;
      r = optical::include(r, value_of(t, to_float(product[row * a.columns + j]), row_term, j));
    }
  }
  r = optical::block_range(r);
  if (threadIdx.x == 0) {
    optical::store_range(unset + 2 * (static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x), r);
  }
}

int64_t tiles(const OpticalOutputArgs& a) {
  int64_t sum = 0;
  for (int m = 0; m < a.members.count; ++m) {
    sum += (a.members.begin[m + 1] - a.members.begin[m] + kTile - 1) / kTile;
  }
  return sum;
}

// Parts that the rows of each batch are cut into: enough blocks to fill the chip, each with at
// least four rows per warp.
int64_t chunks(const OpticalOutputArgs& a, int multiprocessors) {
  const int64_t wanted = static_cast<int64_t>(multiprocessors) * kPartsPerMultiprocessor;
  const int64_t per_batch = wanted / (tiles(a) * a.batches);
  const int64_t most = (a.rows + 4 * kWarps - 1) / (4 * kWarps);
  const int64_t count = per_batch < most ? per_batch : most;
  return count > 1 ? count : 1;
}

template <class T>
bool aligned(const OpticalOutputArgs& a) {
  bool whole = aligned16(a.product, a.y) && a.columns % kColumns == 0;
  for (int m = 0; m <= a.members.count; ++m) whole = whole && a.members.begin[m] % kColumns == 0;
  return whole;
}

}  // namespace

int64_t optical_output_parts(const OpticalOutputArgs& a, int multiprocessors) {
  return 2 * tiles(a) * a.batches * chunks(a, multiprocessors);
}

cudaError_t launch_optical_output(const OpticalOutputArgs& a, const float* unset, float* seen,
                                  Dtype dtype, int multiprocessors, cudaStream_t stream) {
  const int parts = static_cast<int>(chunks(a, multiprocessors));
  const dim3 grid(static_cast<unsigned>(parts * a.batches), static_cast<unsigned>(tiles(a)));
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (aligned<T>(a)) {
      output_kernel<T, true><<<grid, kThreads, 0, stream>>>(a, unset, seen, parts);
    } else {
      output_kernel<T, false><<<grid, kThreads, 0, stream>>>(a, unset, seen, parts);
    }
    return cudaGetLastError();
  });
}

cudaError_t launch_optical_output_seen(const OpticalOutputArgs& a, float* unset, Dtype dtype,
                                       int multiprocessors, cudaStream_t stream) {
  const int parts = static_cast<int>(chunks(a, multiprocessors));
  const dim3 grid(static_cast<unsigned>(parts * a.batches), static_cast<unsigned>(tiles(a)));
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    output_seen_kernel<T><<<grid, kThreads, 0, stream>>>(a, unset, parts);
    return cudaGetLastError();
  });
}

}  // namespace refract
