// Products of small matrices in registers, for CPU kernels whose operands fit the caches. Written
// in GCC's vector types and compiled once per instruction set (REFRACT_TILED), because the number
// of registers decides the shape of a tile. Everything here is inlined into such a kernel.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <utility>

#include "ops/common/simd.h"

namespace refract::simd {

// An instruction set: bytes of a vector, and the tile of accumulators [rows, columns vectors] that
// leaves registers for the operands and has the eight independent sums that a latency of four
// wants.
template <int bytes, int rows, int columns>
struct Isa {
  static constexpr int kBytes = bytes, kRows = rows, kColumns = columns;
};
using Avx512 = Isa<64, 8, 2>;
using Avx2 = Isa<32, 4, 2>;
using Baseline = Isa<16, 4, 2>;

template <class T, class I>
inline constexpr int kLanesOf = I::kBytes / static_cast<int>(sizeof(T));

template <class T, class I>
struct VectorOf {
  typedef T Type __attribute__((vector_size(I::kBytes), aligned(alignof(T)), may_alias));
};

// Defines name(const Args&, begin, end), which runs name_body<I>(args, begin, end) in the widest
// instruction set that the processor has.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// The processor's level of x86-64: 4 with AVX-512, 3 with AVX2, 1 otherwise. REFRACT_ISA_LEVEL
// lowers it, so that the other kernels can be tested.
inline int isa_level() {
  static const int level = [] {
    const int most = __builtin_cpu_supports("x86-64-v4")   ? 4
                     : __builtin_cpu_supports("x86-64-v3") ? 3
                                                           : 1;
    const char* set = std::getenv("REFRACT_ISA_LEVEL");
    return set != nullptr ? std::min(most, std::atoi(set)) : most;
  }();
  return level;
}
#define REFRACT_TILED(name, Args)                                                            \
  __attribute__((target("arch=x86-64-v4"))) void name##_avx512(const Args& a, int64_t begin, \
                                                               int64_t end) {                \
    name##_body<simd::Avx512>(a, begin, end);                                                \
  }                                                                                          \
  __attribute__((target("arch=x86-64-v3"))) void name##_avx2(const Args& a, int64_t begin,   \
                                                             int64_t end) {                  \
    name##_body<simd::Avx2>(a, begin, end);                                                  \
  }                                                                                          \
  void name##_baseline(const Args& a, int64_t begin, int64_t end) {                          \
    name##_body<simd::Baseline>(a, begin, end);                                              \
  }                                                                                          \
  void name(const Args& a, int64_t begin, int64_t end) {                                     \
    if (simd::isa_level() == 4) {                                                            \
      name##_avx512(a, begin, end);                                                          \
    } else if (simd::isa_level() == 3) {                                                     \
      name##_avx2(a, begin, end);                                                            \
    } else {                                                                                 \
      name##_baseline(a, begin, end);                                                        \
    }                                                                                        \
  }
#else
#define REFRACT_TILED(name, Args)                        \
  void name(const Args& a, int64_t begin, int64_t end) { \
    name##_body<simd::Baseline>(a, begin, end);          \
  }
#endif

// Where a matrix lies: element (i, j) at data[i * row + j * column].
template <class T>
struct Strided {
  const T* data;
  int64_t row, column;
};

// c[r][0..C vectors) (+)= sum over i < k of a[r][i] * b[i][...], for R rows. c starts from `start`
// [C vectors], or from itself where `add`, or from zero.
template <class T, class I, int R, int C>
REFRACT_INLINE void tile(Strided<T> a, const T* b, int64_t ldb, int64_t k, T* c, int64_t ldc,
                         bool add, const T* start) {
  using V = typename VectorOf<T, I>::Type;
  constexpr int kLanes = kLanesOf<T, I>;
  V sum[R][C];
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < C; ++j) {
      sum[r][j] = add                ? *reinterpret_cast<const V*>(c + r * ldc + j * kLanes)
                  : start != nullptr ? *reinterpret_cast<const V*>(start + j * kLanes)
                                     : V{};
    }
  }
  for (int64_t i = 0; i < k; ++i) {
    V row[C];
    for (int j = 0; j < C; ++j) row[j] = *reinterpret_cast<const V*>(b + i * ldb + j * kLanes);
    for (int r = 0; r < R; ++r) {
      const T factor = a.data[r * a.row + i * a.column];
      for (int j = 0; j < C; ++j) sum[r][j] += factor * row[j];
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int j = 0; j < C; ++j) *reinterpret_cast<V*>(c + r * ldc + j * kLanes) = sum[r][j];
  }
}

template <class T, class I, int C>
REFRACT_INLINE void tile_rows(int64_t m, Strided<T> a, const T* b, int64_t ldb, int64_t k, T* c,
                              int64_t ldc, bool add, const T* start) {
  int64_t r = 0;
  const auto from = [&](int64_t at) { return Strided<T>{a.data + at * a.row, a.row, a.column}; };
  for (; r + I::kRows <= m; r += I::kRows) {
    tile<T, I, I::kRows, C>(from(r), b, ldb, k, c + r * ldc, ldc, add, start);
  }
  if constexpr (I::kRows > 4) {
    if (r + 4 <= m) tile<T, I, 4, C>(from(r), b, ldb, k, c + r * ldc, ldc, add, start), r += 4;
  }
  if (r + 2 <= m) tile<T, I, 2, C>(from(r), b, ldb, k, c + r * ldc, ldc, add, start), r += 2;
  if (r < m) tile<T, I, 1, C>(from(r), b, ldb, k, c + r * ldc, ldc, add, start);
}

// c [m, vectors] (+)= a [m, k] b [k, vectors]: rows of b and c are whole vectors. `start`
// [vectors] is added to every row; not together with `add`.
template <class T, class I>
REFRACT_INLINE void product(int64_t m, int64_t vectors, int64_t k, Strided<T> a, const T* b,
                            int64_t ldb, T* c, int64_t ldc, bool add = false,
                            const T* start = nullptr) {
  constexpr int kLanes = kLanesOf<T, I>;
  int64_t v = 0;
  for (; v + I::kColumns <= vectors; v += I::kColumns) {
    tile_rows<T, I, I::kColumns>(m, a, b + v * kLanes, ldb, k, c + v * kLanes, ldc, add,
                                 start != nullptr ? start + v * kLanes : nullptr);
  }
  for (; v < vectors; ++v) {
    tile_rows<T, I, 1>(m, a, b + v * kLanes, ldb, k, c + v * kLanes, ldc, add,
                       start != nullptr ? start + v * kLanes : nullptr);
  }
}

// One stage of a transposition in registers: swaps the off-diagonal blocks of width S.
template <class T, class I, int S, int... lane>
REFRACT_INLINE void swap_blocks(typename VectorOf<T, I>::Type& a, typename VectorOf<T, I>::Type& b,
                                std::integer_sequence<int, lane...>) {
  constexpr int kLanes = sizeof...(lane);
  const typename VectorOf<T, I>::Type low =
      __builtin_shufflevector(a, b, ((lane & S) != 0 ? kLanes + lane - S : lane)...);
  b = __builtin_shufflevector(a, b, ((lane & S) != 0 ? kLanes + lane : lane + S)...);
  a = low;
}

template <class T, class I, int S>
REFRACT_INLINE void transpose_stages(typename VectorOf<T, I>::Type* row) {
  constexpr int kLanes = kLanesOf<T, I>;
  if constexpr (S < kLanes) {
    for (int i = 0; i < kLanes; ++i) {
      if ((i & S) == 0) {
        swap_blocks<T, I, S>(row[i], row[i + S], std::make_integer_sequence<int, kLanes>());
      }
    }
    transpose_stages<T, I, 2 * S>(row);
  }
}

// out [columns, rows] = in [rows, columns] transposed; out's rows are filled with zeros up to a
// whole number of vectors.
template <class T, class I>
REFRACT_INLINE void transpose(const T* in, int64_t ld, int64_t rows, int64_t columns, T* out,
                              int64_t ldo) {
  using V = typename VectorOf<T, I>::Type;
  constexpr int kLanes = kLanesOf<T, I>;
  for (int64_t r = 0; r < rows; r += kLanes) {
    int64_t c = 0;
    for (; c + kLanes <= columns; c += kLanes) {
      V block[kLanes];
      for (int i = 0; i < kLanes; ++i) {
        block[i] = r + i < rows ? *reinterpret_cast<const V*>(in + (r + i) * ld + c) : V{};
      }
      transpose_stages<T, I, 1>(block);
      for (int i = 0; i < kLanes; ++i) {
        *reinterpret_cast<V*>(out + (c + i) * ldo + r) = block[i];
      }
    }
    for (; c < columns; ++c) {
      for (int i = 0; i < kLanes; ++i) {
        out[c * ldo + r + i] = r + i < rows ? in[(r + i) * ld + c] : T(0);
      }
    }
  }
}

}  // namespace refract::simd
