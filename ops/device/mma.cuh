// Tensor-core products of 16 x 8 x 16 tiles (mma.sync, sm_80 and later) and the movement of their
// operands: global memory -> swizzled shared memory (cp.async) -> fragments (ldmatrix).
//
// Fragments, with g = lane / 4 and t = lane % 4:
//   A [16, 16]: rows g and g + 8;  C [16, 8]: c[0], c[1] at row g, columns 2t, 2t + 1; c[2], c[3]
//   at row g + 8. Two C tiles side by side, rounded to 16 bits, are an A.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "ops/device/shared_address.cuh"

namespace refract::mma {

struct A {
  uint32_t r[4];
};
struct B2 {  // two 16 x 8 operands: columns 0-7 in r[0], r[1], columns 8-15 in r[2], r[3]
  uint32_t r[4];
};

// c += a b
template <class T>
__device__ __forceinline__ void multiply(float (&c)[4], const A& a, uint32_t b0, uint32_t b1);

template <>
__device__ __forceinline__ void multiply<__half>(float (&c)[4], const A& a, uint32_t b0,
                                                 uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

template <>
__device__ __forceinline__ void multiply<__nv_bfloat16>(float (&c)[4], const A& a, uint32_t b0,
                                                        uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "r"(b0), "r"(b1));
}

// Two floats as one register of T, the first in the low half.
template <class T>
__device__ __forceinline__ uint32_t pack(float lo, float hi);
template <>
__device__ __forceinline__ uint32_t pack<__half>(float lo, float hi) {
  uint32_t out;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
  return out;
}
template <>
__device__ __forceinline__ uint32_t pack<__nv_bfloat16>(float lo, float hi) {
  uint32_t out;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(hi), "f"(lo));
  return out;
}

// Two neighbouring C tiles as the A of the next product.
template <class T>
__device__ __forceinline__ A as_a(const float (&left)[4], const float (&right)[4]) {
  return {{pack<T>(left[0], left[1]), pack<T>(left[2], left[3]), pack<T>(right[0], right[1]),
           pack<T>(right[2], right[3])}};
}

// A tile of rows of D 16-bit elements in shared memory. The 16-byte chunks of a row are permuted
// by its number, so that eight rows' chunks of one column lie in different banks.
template <int D>
struct Tile {
  static constexpr int kChunks = D / 8;
  uint32_t base;  // shared address

  __device__ __forceinline__ uint32_t address(int row, int chunk) const {
    const int swizzle = kChunks >= 8 ? (row & 7) : ((row >> 1) & 3);
    return base + static_cast<uint32_t>((row * kChunks + (chunk ^ swizzle)) * 16);
  }
};

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

// A of the tile's rows [row, row + 16), columns [16 step, 16 step + 16), with the rows in pairs:
// fragment row g is tile row 2g and fragment row g + 8 is 2g + 1, so that a thread's two rows of
// the product are neighbours.
template <int D>
__device__ __forceinline__ A load_a_paired(const Tile<D>& tile, int row, int step, int lane) {
  A a;
  const int paired = ((lane & 7) << 1) | ((lane >> 3) & 1);
  load_matrices(a.r, tile.address(row + paired, 2 * step + (lane >> 4)));
  return a;
}

// Of a tile [n, k]: columns n of the product are its rows [row, row + 16).
template <int D>
__device__ __forceinline__ B2 load_b(const Tile<D>& tile, int row, int step, int lane) {
  B2 b;
  load_matrices(b.r,
                tile.address(row + (lane & 7) + ((lane >> 4) << 3), 2 * step + ((lane >> 3) & 1)));
  return b;
}

// Of a tile [k, n]: k are its rows [row, row + 16), n its columns [16 column, 16 column + 16).
template <int D>
__device__ __forceinline__ B2 load_b_transposed(const Tile<D>& tile, int row, int column,
                                                int lane) {
  B2 b;
  load_matrices_transposed(
      b.r, tile.address(row + (lane & 7) + (((lane >> 3) & 1) << 3), 2 * column + (lane >> 4)));
  return b;
}

__device__ __forceinline__ void copy_async(uint32_t to, const void* from, bool valid) {
  const int bytes = valid ? 16 : 0;  // the rest is filled with zeros
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Starts copying rows [first, first + kRows) of a matrix with `rows` rows, `stride` elements apart;
// rows past the end become zeros. All kThreads threads of a block take part.
template <int kRows, int D, int kThreads, class T>
__device__ __forceinline__ void copy_tile(const Tile<D>& tile, const T* matrix, int64_t stride,
                                          int first, int rows) {
  constexpr int kChunks = Tile<D>::kChunks, kStep = kThreads / kChunks;
  static_assert(kStep % 8 == 0 && kRows % kStep == 0, "a thread's rows are swizzled alike");
  const int row = static_cast<int>(threadIdx.x) / kChunks;
  const int chunk = static_cast<int>(threadIdx.x) % kChunks;
  const T* from = matrix + (first + row) * stride + chunk * 8;
  const uint32_t to = tile.address(row, chunk);
  const int valid = rows - first - row;  // steps up to there exist
#pragma unroll
  for (int i = 0; i < kRows / kStep; ++i) {
    const bool exists = i * kStep < valid;
    copy_async(to + i * kStep * kChunks * 16, exists ? from + i * kStep * stride : matrix, exists);
  }
}

}  // namespace refract::mma
