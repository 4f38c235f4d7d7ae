// What the tests of optical attention share: inputs and settings.
#pragma once
#include <ATen/ops/tensor.h>

#include <cmath>
#include <limits>
#include <string>

#include "ops/optical/attention/attention.h"
#include "ops/optical/inputs.h"
#include "support/compare.h"

namespace refract::testing {

struct AttentionCase {
  int64_t batch, queries, keys, heads, kv_heads, width;
  std::string name() const {
    std::string text;
    for (const int64_t n : {batch, queries, keys, heads, kv_heads, width}) {
      text += std::to_string(n) + " ";
    }
    return text;
  }
};

struct AttentionInputs {
  at::Tensor q, k, v, grad;
  AttentionInputs(const AttentionCase& c, at::ScalarType dtype)
      : q(normal({c.batch, c.queries, c.heads, c.width}, dtype)),
        k(normal({c.batch, c.keys, c.kv_heads, c.width}, dtype)),
        v(normal({c.batch, c.keys, c.kv_heads, c.width}, dtype)),
        grad(normal({c.batch, c.queries, c.heads, c.width}, dtype)) {}
  void to_cuda() {
    for (at::Tensor* t : {&q, &k, &v, &grad}) *t = t->to(at::kCUDA);
  }
};

inline OpticalAttentionSettings settings_of(int64_t width) {
  OpticalAttentionSettings s;
  s.scale = 1.0 / std::sqrt(static_cast<double>(width));
  s.noise = true;
  s.train = true;
  s.clock = clock_of((int64_t{3} << 32) + 1, 5);
  s.seed = 17;
  s.streams = {-4, 9};
  return s;
}

inline at::Tensor unset_ranges() {
  const double inf = std::numeric_limits<double>::infinity();
  return at::tensor({inf, -inf}, at::kFloat).expand({5, 2}).contiguous();
}

// Narrow enough that every quantizer clips something.
inline at::Tensor set_ranges(int64_t width) {
  const double s = 1.5 * std::sqrt(static_cast<double>(width));
  return at::tensor({-2.0, 2.5, -2.5, 2.0, -s, 1.2 * s, -2.0, 2.2, -0.6, 0.5}, at::kFloat)
      .view({5, 2});
}

}  // namespace refract::testing
