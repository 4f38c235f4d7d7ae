// Tensor-core products of a warpgroup (wgmma, compute capability 9.0 only), asynchronous: begin(),
// products, commit(), and wait() before their sums are read. Only for files named x_sm90a.cu.
#pragma once
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "ops/device/mma.cuh"
#include "ops/device/shared_address.cuh"

namespace refract::wgmma {

template <class T>
constexpr bool kIsHalf = false;
template <>
inline constexpr bool kIsHalf<__half> = true;

__device__ __forceinline__ void begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int kPending>
__device__ __forceinline__ void wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}
// A warpgroup's registers, from what the launch gave each thread: fewer, or more once others have
// given theirs.
template <int kRegisters>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// ---- c [64, 64] += a [64, 16] b [16, 64] with b, and a or not, read from swizzled tiles of 64 x
// 64 16-bit elements in shared memory: mma::Tile<64>, 1024-byte aligned, which is the hardware's
// swizzle of 128 bytes.
//
// c[n][i] is warp w's fragment of rows [16 w, 16 w + 16) and columns [8 n, 8 n + 8), and a in
// registers its fragment of the same rows: both as in mma.cuh.

using Sum = float[8][4];

// A tile of 8192 bytes as an operand.
struct Operand {
  uint64_t descriptor;
  __device__ __forceinline__ explicit Operand(uint32_t shared_address)
      : descriptor((1ull << 62) | (64ull << 32) | (64ull << 16) |
                   static_cast<uint64_t>((shared_address & 0x3ffffu) >> 4)) {}
};

// The 16 elements of step `step` of the reduction, which runs along the tile's rows' elements.
__device__ __forceinline__ uint64_t along_rows(const Operand& x, int step) {
  return x.descriptor + static_cast<uint64_t>(2 * step);
}
// .. which runs down the tile's rows.
__device__ __forceinline__ uint64_t down_rows(const Operand& x, int step) {
  return x.descriptor + static_cast<uint64_t>(128 * step);
}

#define REFRACT_WGMMA_SUM(c)                                                                    \
  "+f"(c[0][0]), "+f"(c[0][1]), "+f"(c[0][2]), "+f"(c[0][3]), "+f"(c[1][0]), "+f"(c[1][1]),     \
      "+f"(c[1][2]), "+f"(c[1][3]), "+f"(c[2][0]), "+f"(c[2][1]), "+f"(c[2][2]), "+f"(c[2][3]), \
      "+f"(c[3][0]), "+f"(c[3][1]), "+f"(c[3][2]), "+f"(c[3][3]), "+f"(c[4][0]), "+f"(c[4][1]), \
      "+f"(c[4][2]), "+f"(c[4][3]), "+f"(c[5][0]), "+f"(c[5][1]), "+f"(c[5][2]), "+f"(c[5][3]), \
      "+f"(c[6][0]), "+f"(c[6][1]), "+f"(c[6][2]), "+f"(c[6][3]), "+f"(c[7][0]), "+f"(c[7][1]), \
      "+f"(c[7][2]), "+f"(c[7][3])
#define REFRACT_WGMMA_REGISTERS                                                             \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23," \
  "%24,%25,%26,%27,%28,%29,%30,%31}"
#define REFRACT_WGMMA_OPCODE(type) "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type " "

// c = a b (first) or c += a b. kAcross: the reduction runs down the rows of b's tile.
#define REFRACT_WGMMA_MULTIPLY(type)                                                             \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %37, 0;\n" REFRACT_WGMMA_OPCODE(type)           \
                   REFRACT_WGMMA_REGISTERS ", {%32,%33,%34,%35}, %36, p, 1, 1, %38;\n}"          \
               : REFRACT_WGMMA_SUM(c)                                                            \
               : "r"(a.r[0]), "r"(a.r[1]), "r"(a.r[2]), "r"(a.r[3]), "l"(b), "r"(first ? 0 : 1), \
                 "n"(kAcross ? 1 : 0))
template <class T, bool kAcross>
__device__ __forceinline__ void multiply(Sum& c, const mma::A& a, uint64_t b, bool first = false) {
  if constexpr (kIsHalf<T>) {
    REFRACT_WGMMA_MULTIPLY("f16");
  } else {
    REFRACT_WGMMA_MULTIPLY("bf16");
  }
}
#undef REFRACT_WGMMA_MULTIPLY

// The same with a from shared memory, kAcrossA as kAcrossB.
#define REFRACT_WGMMA_MULTIPLY(type)                                                   \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n" REFRACT_WGMMA_OPCODE(type) \
                   REFRACT_WGMMA_REGISTERS ", %32, %33, p, 1, 1, %35, %36;\n}"         \
               : REFRACT_WGMMA_SUM(c)                                                  \
               : "l"(a), "l"(b), "r"(first ? 0 : 1), "n"(kAcrossA ? 1 : 0), "n"(kAcrossB ? 1 : 0))
template <class T, bool kAcrossA, bool kAcrossB>
__device__ __forceinline__ void multiply_shared(Sum& c, uint64_t a, uint64_t b,
                                                bool first = false) {
  if constexpr (kIsHalf<T>) {
    REFRACT_WGMMA_MULTIPLY("f16");
  } else {
    REFRACT_WGMMA_MULTIPLY("bf16");
  }
}
#undef REFRACT_WGMMA_MULTIPLY
#undef REFRACT_WGMMA_OPCODE
#undef REFRACT_WGMMA_REGISTERS
#undef REFRACT_WGMMA_SUM

// ---- d [64, N] += a [64, 16] b [N, 16]^T with both operands in shared memory

// No read of the accumulators is moved in front of the wait before this.
template <int N>
__device__ __forceinline__ void keep(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}

// Rows of kBytes along the reduced dimension, swizzled in atoms of 8 rows, one after the other.
template <int kBytes>
__device__ __forceinline__ uint64_t operand_of(const void* p) {
  static_assert(kBytes == 128 || kBytes == 64, "the two swizzles in use");
  constexpr uint64_t kAtom = 8 * kBytes >> 4, kSwizzle = kBytes == 128 ? 1 : 2;
  return (shared_address(p) & 0x3FFFF) >> 4 | uint64_t{1} << 16 | kAtom << 32 | kSwizzle << 62;
}

#define REFRACT_F8(i)                                                                         \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define REFRACT_F32(i) REFRACT_F8(i), REFRACT_F8(i + 8), REFRACT_F8(i + 16), REFRACT_F8(i + 24)

#define REFRACT_WGMMA_128(type)                                                          \
  asm volatile(                                                                          \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"                                       \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                       \
      " {"                                                                               \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"   \
      "}, %64, %65, p, 1, 1, 0, 0;\n}"                                                   \
      : REFRACT_F32(0), REFRACT_F32(32)                                                  \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))

#define REFRACT_WGMMA_256(type)                                                                    \
  asm volatile(                                                                                    \
      "{\n.reg .pred p;\nsetp.ne.b32 p, %130, 0;\n"                                                \
      "wgmma.mma_async.sync.aligned.m64n256k16.f32." type "." type                                 \
      " {"                                                                                         \
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                     \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "           \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "           \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "           \
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "           \
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "           \
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, "     \
      "%111, "                                                                                     \
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, " \
      "%127"                                                                                       \
      "}, %128, %129, p, 1, 1, 0, 0;\n}"                                                           \
      : REFRACT_F32(0), REFRACT_F32(32), REFRACT_F32(64), REFRACT_F32(96)                          \
      : "l"(a), "l"(b), "r"(static_cast<int>(accumulate)))

// d [64, N] (+)= a [64, 16] . b [N, 16]^T, asynchronous; the operands in shared memory.
template <class T, int N>
__device__ __forceinline__ void multiply_wide(float (&d)[N / 2], uint64_t a, uint64_t b,
                                              bool accumulate) {
  static_assert(N == 128 || N == 256, "a form for each width");
#define REFRACT_CASE(n)          \
  if constexpr (N == n) {        \
    if constexpr (kIsHalf<T>) {  \
      REFRACT_WGMMA_##n("f16");  \
    } else {                     \
      REFRACT_WGMMA_##n("bf16"); \
    }                            \
  }
  REFRACT_CASE(128)
  REFRACT_CASE(256)
#undef REFRACT_CASE
}
#undef REFRACT_WGMMA_256
#undef REFRACT_WGMMA_128
#undef REFRACT_F32
#undef REFRACT_F8

}  // namespace refract::wgmma
