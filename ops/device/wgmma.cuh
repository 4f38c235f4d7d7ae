// Tensor-core products of a warpgroup (wgmma, compute capability 9.0 only): c [64, 64] += a [64,
// 16] b [16, 64] with b, and a or not, read from swizzled tiles of 64 x 64 16-bit elements in
// shared memory: mma::Tile<64>, 1024-byte aligned, which is the hardware's swizzle of 128 bytes.
//
// c[n][i] is warp w's fragment of rows [16 w, 16 w + 16) and columns [8 n, 8 n + 8), and a in
// registers its fragment of the same rows: both as in mma.cuh.
#pragma once
#include "ops/device/hopper.cuh"
#include "ops/device/mma.cuh"

namespace refract::wgmma {

using Sum = float[8][4];

template <class T>
constexpr bool kIsHalf = false;
template <>
inline constexpr bool kIsHalf<__half> = true;

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

}  // namespace refract::wgmma
