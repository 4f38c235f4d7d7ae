// What the tests of optical attention share: inputs, settings, a run of an implementation, and how
// far two of them may differ.
#pragma once
#include <ATen/ops/tensor.h>

#include <cmath>
#include <limits>
#include <string>

#include "ops/compare.h"
#include "ops/optical/attention.h"
#include "ops/optical/attention_dispatch.h"
#include "ops/optical_inputs.h"

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

struct AttentionOutcome {
  at::Tensor out, normalizer, used, ranges;
  Tensors grads;
};

inline AttentionOutcome run_composite(const AttentionInputs& x, const at::Tensor& ranges,
                                      const OpticalAttentionSettings& s) {
  AttentionOutcome r;
  r.ranges = ranges.clone();
  const auto f = composite::optical_attention_forward(x.q, x.k, x.v, r.ranges, s);
  r.out = f.out;
  r.normalizer = f.normalizer;
  r.used = f.used;
  const auto g = composite::optical_attention_backward(x.grad, x.q, x.k, x.v, r.used, s);
  r.grads = {g.q, g.k, g.v};
  return r;
}

inline AttentionOutcome run_op(const AttentionInputs& x, const at::Tensor& ranges,
                               const OpticalAttentionSettings& s) {
  AttentionOutcome r;
  r.ranges = ranges.clone();
  std::tie(r.out, r.normalizer, r.used) =
      attention_op::forward(x.q, x.k, x.v, r.ranges, REFRACT_ATTENTION_SETTINGS_UNPACK(s));
  auto [q, k, v] = attention_op::backward(x.grad, x.q, x.k, x.v, r.out, r.normalizer, r.used,
                                          REFRACT_ATTENTION_SETTINGS_UNPACK(s));
  r.grads = {q, k, v};
  return r;
}

// Sums are rounded differently, so a position that lies on the edge between two levels can fall to
// either side. A score that does changes its row's probabilities by about one level, and so the
// outputs of that row: `share` of the outputs and one row more may differ, by two levels of the
// output and what four levels of probabilities make of the largest value.
inline void expect_same_levels(const AttentionOutcome& actual, const AttentionOutcome& expected,
                               const std::string& what, double share) {
  const at::Tensor a = actual.out.to(at::kCPU, at::kDouble);
  const at::Tensor e = expected.out.to(at::kCPU, at::kDouble);
  ASSERT_EQ(a.sizes(), e.sizes()) << what;
  ASSERT_EQ(actual.out.scalar_type(), expected.out.scalar_type()) << what;
  const at::Tensor used = expected.used.to(at::kCPU, at::kDouble);
  const double step = (used[4][1].item<double>() - used[4][0].item<double>()) / 255;
  const double value = used[3].abs().max().item<double>();
  const double eps = actual.out.scalar_type() == at::kBFloat16 ? 1.0 / 256
                     : actual.out.scalar_type() == at::kHalf   ? 1.0 / 2048
                                                               : 1e-6;
  const double rounding = eps * e.abs().max().item<double>();
  const at::Tensor difference = a.sub(e).abs();
  const auto moved = difference.gt(0.5 * step + rounding).sum().item<int64_t>();
  EXPECT_LE(moved, e.size(3) + static_cast<int64_t>(share * static_cast<double>(e.numel())))
      << what << ": of " << e.numel() << " outputs";
  EXPECT_LE(difference.max().item<double>(), 2.01 * step + 4 * value / 255 + rounding) << what;
}

// ||a - e|| against ||e||, or against a part of the output's gradient where e vanishes, as q's does
// for a single key: there it is what rounding to the type of q leaves.
inline void expect_same_gradients(const AttentionOutcome& actual, const AttentionOutcome& expected,
                                  const at::Tensor& grad, const std::string& what, double limit) {
  const double least = 0.1 * grad.to(at::kDouble).norm().item<double>();
  for (size_t i = 0; i < 3; ++i) {
    const at::Tensor a = actual.grads[i].to(at::kCPU, at::kDouble);
    const at::Tensor e = expected.grads[i].to(at::kCPU, at::kDouble);
    ASSERT_EQ(a.sizes(), e.sizes()) << what;
    ASSERT_EQ(actual.grads[i].scalar_type(), expected.grads[i].scalar_type()) << what;
    EXPECT_LE(a.sub(e).norm().item<double>(), limit * std::max(e.norm().item<double>(), least))
        << what << ": gradient " << i;
  }
}

inline void expect_same(const AttentionOutcome& actual, const AttentionOutcome& expected,
                        const at::Tensor& grad, const std::string& what, double gradient_limit) {
  constexpr double kShare = 1e-3;
  expect_same_levels(actual, expected, what, kShare);
  // One score a level further moves a row's sum by its probability times scale and step.
  const at::Tensor n = actual.normalizer.to(at::kCPU), m = expected.normalizer.to(at::kCPU);
  EXPECT_LE(n.sub(m).abs().max().item<double>(), 0.06) << what;
  EXPECT_LE(n.sub(m).abs().gt(1e-4).to(at::kDouble).mean().item<double>(), 40 * kShare + 0.02)
      << what;
  for (const auto& [mine, theirs, name] : {std::tuple(actual.used, expected.used, "used"),
                                           std::tuple(actual.ranges, expected.ranges, "ranges")}) {
    const at::Tensor a = mine.to(at::kCPU), e = theirs.to(at::kCPU);
    expect_close(a.narrow(0, 0, 4), e.narrow(0, 0, 4), what + name, 4);
    // The output's, unquantized: a probability's level is 1/255 of a value.
    EXPECT_LE(a.sub(e).abs().max().item<double>(), 0.02) << what << " " << name;
  }
  expect_same_gradients(actual, expected, grad, what, gradient_limit);
}

// Where both forms compute in float, gradients differ by the scores that fell to another level;
// the CUDA kernels round the operands of the backward products to the type of q.
inline double gradient_limit(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 1e-2 : 3e-3; }

}  // namespace refract::testing
