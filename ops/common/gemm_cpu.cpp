#include "ops/common/gemm_cpu.h"

#include <algorithm>
#include <vector>

#include "ops/common/tile.h"

namespace refract::gemm {
namespace {

struct Args {
  int64_t m, n, k;
  simd::Strided<float> a;
  const float* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool add;
  const float* bias;
  float* panel;  // [k, kPanel]
};

// Columns [begin, end) of c.
template <class I>
REFRACT_INLINE void plain_body(const Args& x, int64_t begin, int64_t end) {
  simd::product<float, I>(x.m, (end - begin) / simd::kLanesOf<float, I>, x.k, x.a, x.b + begin,
                          x.ldb, x.c + begin, x.ldc, x.add);
}
REFRACT_TILED(plain, Args)

// The same of a weight that is transposed panel by panel.
template <class I>
REFRACT_INLINE void transposed_body(const Args& x, int64_t begin, int64_t end) {
  constexpr int L = simd::kLanesOf<float, I>;
  for (int64_t column = begin; column < end; column += kPanel) {
    const int64_t width = std::min(kPanel, end - column);
    simd::transpose<float, I>(x.b + column * x.ldb, x.ldb, width, x.k, x.panel, kPanel);
    simd::product<float, I>(x.m, (width + L - 1) / L, x.k, x.a, x.panel, kPanel, x.c + column,
                            x.ldc, false, x.bias != nullptr ? x.bias + column : nullptr);
  }
}
REFRACT_TILED(transposed, Args)

}  // namespace

void multiply(int64_t m, int64_t n, int64_t k, Operand a, const float* b, int64_t ldb, float* c,
              int64_t ldc, bool add) {
  plain({m, n, k, {a.data, a.row, a.column}, b, ldb, c, ldc, add, nullptr, nullptr}, 0, n);
}

void multiply_transposed(int64_t m, int64_t n, int64_t k, Operand a, const float* w, int64_t ldw,
                         float* c, int64_t ldc, const float* bias) {
  thread_local std::vector<float> panel;
  panel.resize(std::max(panel.size(), static_cast<size_t>(k * kPanel)));
  transposed({m, n, k, {a.data, a.row, a.column}, w, ldw, c, ldc, false, bias, panel.data()}, 0, n);
}

}  // namespace refract::gemm
