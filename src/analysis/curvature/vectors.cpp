#include "analysis/curvature/vectors.h"

#include <algorithm>
#include <cmath>

namespace refract {
namespace {

constexpr int64_t kConvertedAtOnce = int64_t{1} << 22;

}  // namespace

double dot_of(const at::Tensor& a, const at::Tensor& b) {
  double sum = 0;
  for (int64_t begin = 0; begin < a.numel(); begin += kConvertedAtOnce) {
    const int64_t length = std::min(kConvertedAtOnce, a.numel() - begin);
    const at::Tensor x = a.narrow(0, begin, length).to(at::kDouble);
    const at::Tensor y = b.narrow(0, begin, length).to(at::kDouble);
    sum += x.dot(y).item<double>();
  }
  return sum;
}

double length_of(const at::Tensor& a) { return std::sqrt(dot_of(a, a)); }

}  // namespace refract
