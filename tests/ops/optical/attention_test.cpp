// Optical attention: the CPU against the composite form, CUDA against the CPU.
//
// Samples for tests/parity/test_every_op.py:
// opcheck: optical_attention(normal(2, 5, 4, 8), normal(2, 5, 2, 8), normal(2, 5, 2, 8),
//   torch.tensor([[-2.0, 2.0]]).repeat(5, 1), 0.4, train=True, noise=True, clock=torch.tensor([3,
//   8]), seed=1, streams=[2, 3])
// opcheck: optical_attention(normal(2, 1, 4, 8), normal(2, 5, 2, 8), normal(2, 5, 2, 8),
//   torch.tensor([[-2.0, 2.0]]).repeat(5, 1), 0.4)
// opcheck: optical_attention(normal(2, 5, 4, 8), normal(2, 5, 2, 8), normal(2, 5, 2, 8),
//   torch.tensor([[-2.0, 2.0]]).repeat(5, 1), 0.4, call_noise=torch.tensor([0.3, -0.2]))
// opcheck: optical_attention_forward(plain(2, 5, 4, 8), plain(2, 5, 4, 8), plain(2, 5, 4, 8),
//   torch.tensor([[-2.0, 2.0]]).repeat(5, 1), False, 0.4)
// opcheck: optical_attention_backward(*(plain(2, 5, 4, 8) for _ in range(5)), plain(2, 4, 5),
//   torch.tensor([[-2.0, 2.0]]).repeat(5, 1), torch.empty(0), 0.4)
#include "ops/optical/attention/attention.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "ops/optical/attention_inputs.h"
#include "ops/optical/quantize/quantization_math.h"

namespace refract {
namespace optical_attention_test {

using testing::clock_of;
using testing::identical;
using testing::name_of;
using testing::normal;
using testing::set_ranges;
using testing::settings_of;
using testing::Tensors;
using testing::unset_ranges;
using Case = testing::AttentionCase;
using Inputs = testing::AttentionInputs;

struct Outcome {
  at::Tensor out, normalizer, used, ranges;
  Tensors grads;
};

Outcome run_composite(const Inputs& x, const at::Tensor& ranges,
                      const OpticalAttentionSettings& s) {
  Outcome r;
  r.ranges = ranges.clone();
  const auto f = composite::optical_attention_forward({x.q, x.k, x.v, r.ranges, false, s});
  r.out = f.out;
  r.normalizer = f.normalizer;
  r.used = f.used;
  const auto g = composite::optical_attention_backward(
      {x.grad, x.q, x.k, x.v, f.out, f.normalizer, r.used, f.mean, s});
  r.grads = {g.q, g.k, g.v};
  return r;
}

Outcome run_op(const Inputs& x, const at::Tensor& ranges, const OpticalAttentionSettings& s) {
  Outcome r;
  r.ranges = ranges.clone();
  const auto f = optical_attention_forward(x.q, x.k, x.v, r.ranges, true, s);
  r.out = f.out;
  r.normalizer = f.normalizer;
  r.used = f.used;
  auto [q, k, v] =
      optical_attention_backward(x.grad, x.q, x.k, x.v, r.out, r.normalizer, r.used, f.mean, s);
  r.grads = {q, k, v};
  return r;
}

// Sums are rounded differently, so a position that lies on the edge between two levels can fall to
// either side. A score that does changes its row's probabilities by about one level, and so the
// outputs of that row: `share` of the outputs and one row more may differ, by two levels of the
// output and what four levels of probabilities make of the largest value.
void expect_same_levels(const Outcome& actual, const Outcome& expected, const std::string& what,
                        double share) {
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
void expect_same_gradients(const Outcome& actual, const Outcome& expected, const at::Tensor& grad,
                           const std::string& what, double limit) {
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

void expect_same(const Outcome& actual, const Outcome& expected, const at::Tensor& grad,
                 const std::string& what, double gradient_limit) {
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
    testing::expect_close(a.narrow(0, 0, 4), e.narrow(0, 0, 4), what + name, 4);
    // The output's, unquantized: a probability's level is 1/255 of a value.
    EXPECT_LE(a.sub(e).abs().max().item<double>(), 0.02) << what << " " << name;
  }
  expect_same_gradients(actual, expected, grad, what, gradient_limit);
}

// Where both forms compute in float, gradients differ by the scores that fell to another level;
// the CUDA kernels round the operands of the backward products to the type of q.
double gradient_limit(at::ScalarType dtype) { return dtype == at::kBFloat16 ? 1e-2 : 3e-3; }

const Case kCases[] = {{1, 1, 1, 1, 1, 8},      {2, 5, 5, 2, 1, 16},   {2, 67, 67, 4, 2, 32},
                       {1, 130, 130, 2, 2, 64}, {1, 3, 9, 2, 2, 16},   {2, 4, 9, 3, 1, 20},
                       {1, 1, 33, 2, 1, 32},    {1, 80, 200, 2, 1, 12}};

TEST(OpticalAttention, CpuAgreesWithComposite) {
  at::manual_seed(1);
  for (const Case& c : kCases) {
    for (const auto dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
      const Inputs x(c, dtype);
      const OpticalAttentionSettings s = settings_of(c.width);
      for (const bool set : {false, true}) {
        const at::Tensor ranges = set ? set_ranges(c.width) : unset_ranges();
        const std::string what =
            c.name() + name_of(dtype) + (set ? " set ranges " : " unset ranges ");
        expect_same(run_op(x, ranges, s), run_composite(x, ranges, s), x.grad, what,
                    gradient_limit(dtype));
      }
    }
  }
}

TEST(OpticalAttention, StridedInputsAreRead) {
  at::manual_seed(2);
  const Case c{2, 33, 33, 4, 2, 16};
  const at::Tensor joint = normal({2, 33, 8, 16}, at::kFloat);
  Inputs x(c, at::kFloat);
  x.q = joint.narrow(2, 0, 4);
  x.k = joint.narrow(2, 4, 2);
  x.v = joint.narrow(2, 6, 2);
  Inputs y = x;
  y.q = x.q.contiguous();
  y.k = x.k.transpose(1, 2).contiguous().transpose(1, 2);
  y.v = x.v.transpose(2, 3).contiguous().transpose(2, 3);
  const OpticalAttentionSettings s = settings_of(16);
  const Outcome a = run_op(x, unset_ranges(), s), b = run_op(y, unset_ranges(), s);
  EXPECT_TRUE(identical(a.out, b.out));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(a.grads[i], b.grads[i])) << i;
}

TEST(OpticalAttention, DoesNotDependOnThreads) {
  at::manual_seed(12);
  const Inputs x({2, 70, 70, 4, 2, 32}, at::kFloat);
  const OpticalAttentionSettings s = settings_of(32);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Outcome one = run_op(x, unset_ranges(), s);
  at::set_num_threads(2);
  const Outcome two = run_op(x, unset_ranges(), s);
  at::set_num_threads(threads);
  EXPECT_TRUE(identical(one.out, two.out));
  EXPECT_TRUE(identical(one.ranges, two.ranges));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(one.grads[i], two.grads[i])) << i;
}

TEST(OpticalAttention, MaseSwitches) {
  at::manual_seed(13);
  const Inputs x({1, 24, 24, 2, 2, 16}, at::kFloat);
  const OpticalAttentionSettings s = settings_of(16);
  const Outcome right = run_op(x, unset_ranges(), s);

  OpticalAttentionSettings scaled = s;
  scaled.scaled_score_range = true;
  const Outcome by_scaled = run_op(x, unset_ranges(), scaled);
  testing::expect_close(by_scaled.ranges[2], right.ranges[2].mul(0.25), "scaled range");
  EXPECT_FALSE(identical(by_scaled.out, right.out)) << "scores were to be clipped";

  OpticalAttentionSettings shared = s;
  shared.shared_noise = optical::mase_shared_noise(0);
  const Outcome offset = run_op(x, set_ranges(16), shared);
  expect_same_levels(offset, run_composite(x, set_ranges(16), shared), "shared", 1e-3);
  shared.clock = clock_of(99, 3);
  EXPECT_TRUE(identical(offset.out, run_op(x, set_ranges(16), shared).out))
      << "the shared number never advances";

  OpticalAttentionSettings clipped = s;
  clipped.clipped_ranges = true;
  const at::Tensor narrow = set_ranges(16);
  const Outcome shrunk = run_op(x, narrow, clipped), free = run_op(x, narrow, s);
  for (const int role : {2, 4}) {
    EXPECT_GE(shrunk.ranges[role][0].item<float>(), narrow[role][0].item<float>()) << role;
    EXPECT_LE(shrunk.ranges[role][1].item<float>(), narrow[role][1].item<float>()) << role;
    EXPECT_LT(free.ranges[role][0].item<float>(), narrow[role][0].item<float>()) << role;
    EXPECT_GT(free.ranges[role][1].item<float>(), narrow[role][1].item<float>()) << role;
  }
  for (const auto& settings : {scaled, clipped}) {
    const Outcome a = run_op(x, narrow, settings), b = run_composite(x, narrow, settings);
    testing::expect_close(a.ranges.narrow(0, 0, 4), b.ranges.narrow(0, 0, 4), "ranges", 4);
  }
}

TEST(OpticalAttention, RefusesWhatDoesNotFit) {
  const Inputs x({1, 4, 4, 2, 1, 8}, at::kFloat);
  OpticalAttentionSettings s = settings_of(8);
  const auto refused = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& ranges) {
    EXPECT_THROW(optical_attention(q, k, x.v, ranges, s), c10::Error);
  };
  refused(x.q[0], x.k, unset_ranges());
  refused(x.q, x.k.narrow(1, 0, 3), unset_ranges());
  refused(x.q.narrow(2, 0, 1).repeat({1, 1, 3, 1}), x.k.repeat({1, 1, 2, 1}), unset_ranges());
  refused(x.q, x.k.to(at::kHalf), unset_ranges());
  refused(x.q, x.k, unset_ranges().narrow(0, 0, 4));
  s.streams = {1};
  refused(x.q, x.k, unset_ranges());
  s = settings_of(8);
  s.scale = 0;
  refused(x.q, x.k, unset_ranges());
}

const Case kCudaCases[] = {
    {2, 64, 64, 2, 2, 64},    {2, 67, 67, 4, 2, 32},  {1, 200, 200, 6, 2, 64},
    {1, 333, 333, 2, 1, 128}, {1, 34, 100, 2, 2, 64}, {2, 1, 1, 2, 1, 32},
    {1, 130, 130, 3, 1, 128}, {1, 3, 8, 2, 2, 64},    {1, 20, 20, 2, 2, 24}};

TEST(OpticalAttention, CudaAgreesWithCpu) {
  REFRACT_CUDA_OR_SKIP();
  at::manual_seed(14);
  for (const Case& c : kCudaCases) {
    for (const auto dtype : {at::kHalf, at::kBFloat16, at::kFloat}) {
      const Inputs x(c, dtype);
      Inputs on_device = x;
      on_device.to_cuda();
      const OpticalAttentionSettings s = settings_of(c.width);
      OpticalAttentionSettings device_settings = s;
      device_settings.clock = s.clock->to(at::kCUDA);
      for (const bool set : {false, true}) {
        const at::Tensor ranges = set ? set_ranges(c.width) : unset_ranges();
        const std::string what =
            c.name() + name_of(dtype) + (set ? " set ranges " : " unset ranges ");
        const Outcome cpu = run_op(x, ranges, s);
        const Outcome cuda = run_op(on_device, ranges.to(at::kCUDA), device_settings);
        expect_same(cuda, cpu, x.grad, what, gradient_limit(dtype));
      }
    }
  }
}

// Scores that span more than 2^200: no sum of exponentials fits without its row's maximum.
TEST(OpticalAttention, CudaSumsWideScores) {
  REFRACT_CUDA_OR_SKIP();
  at::manual_seed(17);
  const Inputs x({1, 96, 96, 2, 2, 64}, at::kBFloat16);
  Inputs on_device = x;
  on_device.to_cuda();
  OpticalAttentionSettings s = settings_of(64);
  s.scale = 10;
  OpticalAttentionSettings device_settings = s;
  device_settings.clock = s.clock->to(at::kCUDA);
  const at::Tensor ranges = set_ranges(64);
  const Outcome cuda = run_op(on_device, ranges.to(at::kCUDA), device_settings);
  // Softmax is close to one-hot here, so each score that falls to the other side of an edge, 3 in
  // 10,000, moves its whole row of 48.5 visible keys in the mean.
  expect_same_levels(cuda, run_op(x, ranges, s), "wide scores", 3e-4 * 48.5);
  for (const at::Tensor& grad : cuda.grads) EXPECT_TRUE(grad.isfinite().all().item<bool>());
}

TEST(OpticalAttention, CudaIsDeterministic) {
  REFRACT_CUDA_OR_SKIP();
  at::manual_seed(15);
  Inputs x({4, 512, 512, 6, 2, 64}, at::kBFloat16);
  x.to_cuda();
  OpticalAttentionSettings s = settings_of(64);
  s.clock = s.clock->to(at::kCUDA);
  const Outcome a = run_op(x, unset_ranges().to(at::kCUDA), s);
  const Outcome b = run_op(x, unset_ranges().to(at::kCUDA), s);
  EXPECT_TRUE(identical(a.out, b.out));
  EXPECT_TRUE(identical(a.ranges, b.ranges));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(a.grads[i], b.grads[i])) << i;
}

// One number for all scores and one for all outputs; equal ones are the number that both share.
void expect_call_noise(at::Device device) {
  const Inputs x({2, 24, 24, 4, 2, 16}, at::kFloat);
  Inputs here = x;
  if (device.is_cuda()) here.to_cuda();
  const at::Tensor ranges = set_ranges(16).to(device);
  OpticalAttentionSettings s = settings_of(16), shared = s, other = s;
  s.clock = shared.clock = other.clock = s.clock->to(device);
  shared.shared_noise = 0.25;
  s.call_noise = at::tensor({0.25f, 0.25f}, at::kFloat).to(device);
  other.call_noise = at::tensor({0.25f, -0.25f}, at::kFloat).to(device);
  const Outcome a = run_op(here, ranges, s), b = run_composite(here, ranges, shared),
                c = run_op(here, ranges, other);
  EXPECT_TRUE(identical(a.out, b.out));
  EXPECT_TRUE(identical(a.ranges, b.ranges));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(a.grads[i], b.grads[i])) << i;
  EXPECT_FALSE(identical(a.out, c.out));
  for (size_t i = 0; i < 3; ++i) EXPECT_TRUE(identical(a.grads[i], c.grads[i])) << i;
}

TEST(OpticalAttention, CallNoiseIsANumberForEachProduct) { expect_call_noise(at::kCPU); }
TEST(OpticalAttention, CudaCallNoiseIsANumberForEachProduct) {
  REFRACT_CUDA_OR_SKIP();
  expect_call_noise(at::kCUDA);
}

TEST(OpticalAttention, CudaMaseSwitches) {
  REFRACT_CUDA_OR_SKIP();
  at::manual_seed(16);
  const Inputs x({1, 96, 96, 2, 2, 64}, at::kBFloat16);
  Inputs on_device = x;
  on_device.to_cuda();
  for (int which = 0; which < 3; ++which) {
    OpticalAttentionSettings s = settings_of(64);
    s.scaled_score_range = which == 0;
    if (which == 1) s.shared_noise = optical::mase_shared_noise(0);
    s.clipped_ranges = which == 2;
    OpticalAttentionSettings device_settings = s;
    device_settings.clock = s.clock->to(at::kCUDA);
    for (const at::Tensor& ranges : {unset_ranges(), set_ranges(64)}) {
      expect_same(run_op(on_device, ranges.to(at::kCUDA), device_settings), run_op(x, ranges, s),
                  x.grad, "switch " + std::to_string(which) + " ", gradient_limit(at::kBFloat16));
    }
  }
}

}  // namespace optical_attention_test
}  // namespace refract
