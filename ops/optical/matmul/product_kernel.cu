// The pass over a product of codes: value, noise, level, bias, output and range. A thread has eight
// columns of one member, whose terms it keeps in registers, and walks down the rows of its block; a
// warp covers 256 columns of one row, so that loads and stores are whole lines.
#include <type_traits>

#include "ops/optical/matmul/product_kernel.h"
#include "ops/optical/matmul/product_output.cuh"
#include "ops/optical/quantize/ranges.cuh"

namespace refract {
namespace {

using optical::kThreads;
using optical::kWarps;
using optical::Range;

constexpr int kColumns = 8;                  // per thread
constexpr int kTile = 32 * kColumns;         // per block
constexpr int kBlocksPerMultiprocessor = 4;  // all at once

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

// Where a block is: blockIdx.x = batch and rows, .y = columns of the member blockIdx.z.
struct Place {
  int member;
  int64_t batch, row, row_end;  // rows within the batch
  int64_t column, column_end;   // within all columns; of this thread, of the member
  bool beyond;                  // the member has fewer columns than the widest one
};

__host__ __device__ __forceinline__ int64_t tiles_of(const OpticalMembers& m, int member) {
  return optical::tiles_of<kTile>(m, member);
}

__device__ __forceinline__ Place place_of(const OpticalOutputArgs& a, int chunks) {
  Place p;
  p.member = blockIdx.z;
  p.column = a.members.begin[p.member] + static_cast<int64_t>(blockIdx.y) * kTile +
             threadIdx.x % 32 * kColumns;
  p.column_end = a.members.begin[p.member + 1];
  p.beyond = blockIdx.y >= tiles_of(a.members, p.member);
  const unsigned chunk = blockIdx.x % chunks;
  const int64_t rows = (a.rows + chunks - 1) / chunks;
  p.batch = blockIdx.x / chunks;
  p.row = chunk * rows + threadIdx.x / 32;
  p.row_end = (chunk + 1) * rows < a.rows ? (chunk + 1) * rows : a.rows;
  return p;
}

// A member's parts of `seen` or `unset`: [tiles, gridDim.x] of the members before it, then its own.
__device__ __forceinline__ int64_t first_part(const OpticalOutputArgs& a, int member) {
  int64_t tiles = 0;
  for (int m = 0; m < member; ++m) tiles += tiles_of(a.members, m);
  return tiles * gridDim.x;
}
__device__ __forceinline__ int64_t part_of(const OpticalOutputArgs& a, int member) {
  return first_part(a, member) + static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x;
}
__device__ __forceinline__ const float* parts_at(const float* parts, int64_t first) {
  return parts == nullptr ? nullptr : parts + 2 * first;
}

// gain, the rows' gain, and what each column adds.
struct Terms {
  float gain, row_gain;
  float column[kColumns];
};

// The sums of the codes of a thread's columns.
struct ColumnSums {
  float at[kColumns];
  __device__ __forceinline__ ColumnSums(const OpticalOutputArgs& a, const Place& p) {
    const float* sums = a.column_sums + p.batch * a.columns + p.column;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) at[j] = p.column + j < p.column_end ? sums[j] : 0.0f;
  }
};

__device__ __forceinline__ Terms terms_of(const optical::Mix& mix, const ColumnSums& sums) {
  Terms t{mix.gain, mix.row_gain, {}};
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    t.column[j] = optical::add(optical::mul(mix.column_gain, sums.at[j]), mix.constant);
  }
  return t;
}

__device__ __forceinline__ float value_of(const Terms& t, float product, float row, int j) {
  return __fmaf_rn(t.gain, product, row + t.column[j]);
}

// The quantizer, bias and noise of a thread's columns.
template <class T>
struct Finish {
  optical::Quantizer q;
  float bias[kColumns];
  PhiloxKey key;
  optical::Now now;
  uint64_t first;  // index of the thread's first element of row 0
  int64_t width;   // of the member

  __device__ __forceinline__ Finish(const OpticalOutputArgs& a, const Place& p)
      : key(a.key[p.member]),
        now(optical::now_of(a.clock)),
        width(p.column_end - a.members.begin[p.member]) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const bool has = a.bias != nullptr && p.column + j < p.column_end;
      bias[j] = has ? to_float(static_cast<const T*>(a.bias)[p.column + j]) : 0.0f;
    }
    first = now.slice * static_cast<uint64_t>(a.batches * a.rows / a.slices * width) +
            static_cast<uint64_t>(p.batch * a.rows * width + p.column - a.members.begin[p.member]);
  }
};

// The products of a thread's eight columns, all there, row by row: the next row's are on their way
// while one is computed.
template <class T>
struct Products {
  using P = typename ProductOf<T>::type;
  const P* product;
  const float* row_sums;
  int64_t stride;
  Vec<P, kColumns> next;
  float next_sum;

  __device__ __forceinline__ Products(const OpticalOutputArgs& a, const Place& p)
      : product(static_cast<const P*>(a.product) + (p.batch * a.rows + p.row) * a.columns +
                p.column),
        row_sums(a.row_sums + p.batch * a.rows + p.row),
        stride(kWarps * a.columns) {
    if (p.row < p.row_end && p.column < p.column_end) fetch();
  }
  __device__ __forceinline__ void fetch() {
    next = load_columns(product);
    next_sum = *row_sums;
    product += stride;
    row_sums += kWarps;
  }
};

// Rows of a thread whose eight columns draw one block of noise, for at most 256 levels: above, the
// rounding of u + xi could reach past the last level. The clamp is the multiply-add's own
// saturation, which makes 0 of a NaN; so a NaN or infinity in a row of x, or in a row of the
// weight, is carried by `dark`, the value of level 0.
template <class T, bool kBias, bool kDraws>
__device__ __forceinline__ Range whole_rows(const OpticalOutputArgs& a, const Place& p,
                                            const Terms& t, const Finish<T>& f,
                                            Products<T>& products) {
  T* y = static_cast<T*>(a.y) + (p.batch * a.rows + p.row) * a.columns + p.column;
  uint64_t block = (f.first + static_cast<uint64_t>(p.row * f.width)) >> 3;
  const float share = f.q.scale / f.q.top, offset = -f.q.lo * share;
  float dark = f.q.lo;
#pragma unroll
  for (int j = 0; j < kColumns; ++j) dark = __fmaf_rn(t.column[j], 0.0f, dark);
  Range r = optical::unset_range();
  for (int64_t row = p.row; row < p.row_end; row += kWarps) {
    const auto v = products.next;
    const float row_term = t.row_gain * products.next_sum;
    if (row + kWarps < p.row_end) products.fetch();
    const float row_dark = __fmaf_rn(row_term, 0.0f, dark);
    PhiloxBlock drawn{};
    if (kDraws) drawn = noise_block(f.key, f.now.step, block);
    Vec<T, kColumns> out;
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const float xi = kDraws ? optical::noise_of_half(drawn.word[j / 2], j % 2 != 0) : a.shared;
      const float value = value_of(t, to_float(v.at[j]), row_term, j);
      r = optical::include(r, value);
      const float place = __saturatef(__fmaf_rn(value, share, offset));
      const float level = optical::round_even(__fmaf_rn(place, f.q.top, xi));
      const float result = __fmaf_rn(level, f.q.step, row_dark);
      out.at[j] = from_float<T>(kBias ? result + f.bias[j] : result);
    }
    store_columns(y, out);
    y += products.stride;
    block += static_cast<uint64_t>(f.width);  // eight rows on, in blocks of eight
  }
  return r;
}
static_assert(kWarps == 8);

// Rows of any columns, element by element.
template <class T>
__device__ __forceinline__ Range ragged_rows(const OpticalOutputArgs& a, const Place& p,
                                             const Terms& t, const Finish<T>& f) {
  using P = typename ProductOf<T>::type;
  Range r = optical::unset_range();
  for (int64_t row = p.row; row < p.row_end; row += kWarps) {
    const int64_t at = (p.batch * a.rows + row) * a.columns + p.column;
    const float row_term = t.row_gain * a.row_sums[p.batch * a.rows + row];
    const uint64_t index = f.first + static_cast<uint64_t>(row * f.width);
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if (p.column + j >= p.column_end) break;
      const float xi = a.draws ? optical::noise_at(f.key, f.now.step, index + j) : a.shared;
      const float v = value_of(t, to_float(static_cast<const P*>(a.product)[at + j]), row_term, j);
      const float level = optical::noisy_level(f.q, v, xi);
      const float out = optical::add(optical::plain_value(f.q, level), f.bias[j]);
      r = optical::include(r, a.clipped ? out : v);
      static_cast<T*>(a.y)[at + j] = from_float<T>(out);
    }
  }
  return r;
}

struct Nothing {
  __device__ Nothing(const OpticalOutputArgs&, const Place&) {}
};

enum class Rows { kWhole, kWholeBias, kWholeDrawn, kWholeDrawnBias, kRagged };

template <class T, Rows kRows>
__global__ void __launch_bounds__(kThreads, 4)
    output_kernel(OpticalOutputArgs a, const float* unset, float* seen, int chunks,
                  unsigned blocks) {
  optical::wait_for_earlier();
  const Place p = place_of(a, chunks);
  if (p.beyond) return;
  std::conditional_t<kRows == Rows::kRagged, Nothing, Products<T>> products(a, p);
  const ColumnSums sums(a, p);
  Finish<T> f(a, p);
  const Range used = optical::effective_range(optical::load_range(a.members.range[p.member]),
                                              parts_at(unset, first_part(a, p.member)),
                                              tiles_of(a.members, p.member) * gridDim.x);
  __shared__ optical::Quantizer shared_q;  // divisions once per block, not once per thread
  __shared__ optical::Mix shared_mix;
  if (threadIdx.x == 0) shared_q = optical::quantizer(used, a.levels, 0.0f);
  if (threadIdx.x == 32) shared_mix = optical::mix_of(a, p.member);
  __syncthreads();
  f.q = shared_q;
  const Terms t = terms_of(shared_mix, sums);
  Range r = optical::unset_range();
  if (p.column < p.column_end) {
    if constexpr (kRows == Rows::kRagged) {
      r = ragged_rows<T>(a, p, t, f);
    } else {
      constexpr bool kBias = kRows == Rows::kWholeBias || kRows == Rows::kWholeDrawnBias;
      constexpr bool kDraws = kRows == Rows::kWholeDrawn || kRows == Rows::kWholeDrawnBias;
      r = whole_rows<T, kBias, kDraws>(a, p, t, f, products);
    }
  }
  if (!a.train) return;
  r = optical::block_range(r);
  __shared__ bool last;
  if (threadIdx.x == 0) {
    optical::store_range(seen + 2 * part_of(a, p.member), r);
    last = optical::is_last(a.ticket, blocks);
  }
  __syncthreads();
  if (!last) return;
  optical::move_ranges(a, unset, seen, [&](int member) {
    return optical::Parts{first_part(a, member), tiles_of(a.members, member) * gridDim.x};
  });
}

// For unset ranges: what the output will be quantized from.
template <class T>
__global__ void __launch_bounds__(kThreads)
    output_seen_kernel(OpticalOutputArgs a, float* unset, int chunks) {
  using P = typename ProductOf<T>::type;
  const Place p = place_of(a, chunks);
  if (p.beyond || optical::is_set(optical::load_range(a.members.range[p.member]))) return;
  const Terms t = terms_of(optical::mix_of(a, p.member), ColumnSums(a, p));
  const P* product = static_cast<const P*>(a.product) + p.batch * a.rows * a.columns + p.column;
  Range r = optical::unset_range();
  for (int64_t row = p.row; row < p.row_end; row += kWarps) {
    const float row_term = t.row_gain * a.row_sums[p.batch * a.rows + row];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      if (p.column + j >= p.column_end) break;
      r = optical::include(r, value_of(t, to_float(product[row * a.columns + j]), row_term, j));
    }
  }
  r = optical::block_range(r);
  if (threadIdx.x == 0) optical::store_range(unset + 2 * part_of(a, p.member), r);
}

struct Grid {
  int chunks;      // that the rows of each batch are cut into
  int64_t blocks;  // that have work
  dim3 dim;
};

// As many blocks as the chip holds at once, each with at least four rows per warp.
Grid grid_of(const OpticalOutputArgs& a, int multiprocessors) {
  int64_t all = 0, widest = 0;
  for (int m = 0; m < a.members.count; ++m) {
    const int64_t tiles = tiles_of(a.members, m);
    all += tiles;
    widest = tiles > widest ? tiles : widest;
  }
  const int64_t wanted =
      static_cast<int64_t>(multiprocessors) * kBlocksPerMultiprocessor / (all * a.batches);
  const int64_t most = (a.rows + 4 * kWarps - 1) / (4 * kWarps);
  int64_t chunks = wanted < most ? wanted : most;
  chunks = chunks > 1 ? chunks : 1;
  return {static_cast<int>(chunks), all * a.batches * chunks,
          dim3(static_cast<unsigned>(chunks * a.batches), static_cast<unsigned>(widest),
               static_cast<unsigned>(a.members.count))};
}

// Which form of the rows' loop: whole vectors where every member's columns come in eights, and the
// settings are the usual ones.
Rows rows_of(const OpticalOutputArgs& a) {
  bool whole =
      !a.clipped && a.levels <= 256 && aligned16(a.product, a.y) && a.columns % kColumns == 0;
  for (int m = 0; m <= a.members.count; ++m) whole = whole && a.members.begin[m] % kColumns == 0;
  if (!whole) return Rows::kRagged;
  if (a.draws) return a.bias != nullptr ? Rows::kWholeDrawnBias : Rows::kWholeDrawn;
  return a.bias != nullptr ? Rows::kWholeBias : Rows::kWhole;
}

template <Rows kRows>
cudaError_t launch_rows(const OpticalOutputArgs& a, const float* unset, float* seen, Dtype dtype,
                        const Grid& grid, cudaStream_t stream) {
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return optical::launch_overlapped(output_kernel<T, kRows>, grid.dim, stream, a, unset, seen,
                                      grid.chunks, static_cast<unsigned>(grid.blocks));
  });
}

}  // namespace

int64_t optical_output_parts(const OpticalOutputArgs& a, int multiprocessors) {
  return 2 * grid_of(a, multiprocessors).blocks;
}

cudaError_t launch_optical_output(const OpticalOutputArgs& a, const float* unset, float* seen,
                                  Dtype dtype, int multiprocessors, cudaStream_t stream) {
  const Grid grid = grid_of(a, multiprocessors);
  switch (rows_of(a)) {
    case Rows::kWhole:
      return launch_rows<Rows::kWhole>(a, unset, seen, dtype, grid, stream);
    case Rows::kWholeBias:
      return launch_rows<Rows::kWholeBias>(a, unset, seen, dtype, grid, stream);
    case Rows::kWholeDrawn:
      return launch_rows<Rows::kWholeDrawn>(a, unset, seen, dtype, grid, stream);
    case Rows::kWholeDrawnBias:
      return launch_rows<Rows::kWholeDrawnBias>(a, unset, seen, dtype, grid, stream);
    default:
      return launch_rows<Rows::kRagged>(a, unset, seen, dtype, grid, stream);
  }
}

cudaError_t launch_optical_output_seen(const OpticalOutputArgs& a, float* unset, Dtype dtype,
                                       int multiprocessors, cudaStream_t stream) {
  const Grid grid = grid_of(a, multiprocessors);
  return dispatch_cuda(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    output_seen_kernel<T><<<grid.dim, kThreads, 0, stream>>>(a, unset, grid.chunks);
    return cudaGetLastError();
  });
}

}  // namespace refract
