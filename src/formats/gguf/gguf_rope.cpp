#include "formats/gguf/gguf_rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace refract {
namespace {

bool are_near(std::span<const float> a, std::span<const float> b) {
  constexpr float kTolerance = 1e-4F;  // float32 in another order of operations
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](float x, float y) {
    return std::abs(x - y) <= kTolerance * std::max(std::abs(x), std::abs(y));
  });
}

}  // namespace

std::vector<float> llama3_divisors(const Llama3Rope& rope) {
  std::vector<float> divisors;
  const auto original = static_cast<double>(rope.original);
  for (int64_t i = 0; i < rope.head_dim; i += 2) {
    const double exponent = static_cast<double>(i) / static_cast<double>(rope.head_dim);
    const double wavelength = 2 * std::numbers::pi * std::pow(rope.theta, exponent);
    double divisor = rope.factor;
    if (wavelength < original / rope.high) {
      divisor = 1;
    } else if (wavelength <= original / rope.low) {
      const double smooth = (original / wavelength - rope.low) / (rope.high - rope.low);
      divisor = 1 / ((1 - smooth) / rope.factor + smooth);
    }
    divisors.push_back(static_cast<float>(divisor));
  }
  return divisors;
}

std::optional<Llama3Rope> llama3_of_divisors(std::span<const float> divisors,
                                             const Llama3Rope& known) {
  if (divisors.empty() || known.head_dim != static_cast<int64_t>(2 * divisors.size()))
    return std::nullopt;
  Llama3Rope rope = known;
  if (!(known.factor > 0)) rope.factor = *std::max_element(divisors.begin(), divisors.end());
  if (!(rope.factor >= 1) || !std::isfinite(rope.factor)) return std::nullopt;
  std::vector<int64_t> lengths = {known.original};
  if (known.original == 0) {
    lengths = {8192};  // the published models'
    for (int64_t length = 256; length <= int64_t{1} << 24; length *= 2) lengths.push_back(length);
  }
  for (const int64_t length : lengths) {
    rope.original = length;
    if (are_near(llama3_divisors(rope), divisors)) return rope;
  }
  return std::nullopt;
}

}  // namespace refract
