// Products of fp32 matrices on the calling thread of a CPU, in the widest vectors that it has.
// Callers cut their work into blocks that fit the second-level cache and spread these over threads.
// BLAS libraries that look at the processor's maker use half of an AVX-512 unit that is not
// Intel's. A sum runs over the whole inner dimension in order, whatever the block.
#pragma once
#include <cstdint>

namespace refract::gemm {

constexpr int64_t kWhole = 16;  // floats of the widest vector
constexpr int64_t kPanel = 32;  // columns worked on at a time: a tile of AVX-512, two of AVX2

inline int64_t rounded_up(int64_t columns) { return (columns + kWhole - 1) / kWhole * kWhole; }

// Element (i, j) lies at data[i * row + j * column].
struct Operand {
  const float* data;
  int64_t row, column;
};

// c [m, n] = a [m, k] b [k, n], or c += with `add`. n is a multiple of kWhole.
void multiply(int64_t m, int64_t n, int64_t k, Operand a, const float* b, int64_t ldb, float* c,
              int64_t ldc, bool add = false);

// c [m, n] = a [m, k] w [n, k]^T + bias [n]. Rows of c have room for rounded_up(n) values, and what
// lies behind n in them is overwritten. bias may be null; with one, n is a multiple of kWhole.
void multiply_transposed(int64_t m, int64_t n, int64_t k, Operand a, const float* w, int64_t ldw,
                         float* c, int64_t ldc, const float* bias = nullptr);

}  // namespace refract::gemm
