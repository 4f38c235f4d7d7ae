// optical_linear: the kernels against the composite form and the definition in float64, gradients
// against the dense layer, ranges, groups, noise, captured graphs.
//
// Samples for tests/parity/test_every_op.py:
// opcheck: optical_encode(plain(10, 8), [unset(), unset()], [6, 4])
// opcheck: optical_encode(plain(10, 8), [unset(), unset()], [6, 4], 4096)
// opcheck: optical_linear_forward(plain(3, 5, 8), plain(10, 8), list(ops.optical_encode(plain(10,
//   8), [unset(), unset()], [6, 4], 256, 0.02004)), None, unset(), [unset(), unset()], [unset(),
//   unset()], [6, 4], True, train=True, noise=True, clock=torch.tensor([3, 8]), seed=3,
//   streams=[1, 2])
// opcheck: optical_linear(normal(3, 5, 8), normal(10, 8), normal(10), unset(), [unset(),
//   unset()], [unset(), unset()], [6, 4], [], train=True, noise=True, clock=torch.tensor([3, 8]),
//   seed=3, streams=[1, 2])
// opcheck: optical_linear(normal(3, 5, 8), normal(10, 8), normal(10), unset(), [unset(),
//   unset()], [unset(), unset()], [6, 4], [], noise=True, clock=torch.tensor([3, 8]), seed=3,
//   streams=[1, 2])
// opcheck: optical_linear(normal(3, 5, 8), normal(10, 8), normal(10), unset(), [unset(),
//   unset()], [unset(), unset()], [6, 4], [], quantiles=[0.01, 0.99], noise=True,
//   clock=torch.tensor([3, 8]), seed=3, streams=[1, 2])
#include "ops/optical/linear/linear.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>
#include <torch/csrc/autograd/autograd.h>

#include <thread>

#include "ops/common/cuda_runtime.h"
#include "ops/optical/inputs.h"
#include "ops/optical/levels.h"
#include "ops/optical/quantize/quantize.h"
#include "support/compare.h"

namespace refract {
namespace optical_linear_test {

using testing::clock_of;
using testing::distance;
using testing::expect_levels;
using testing::identical;
using testing::kKernelTypes;
using testing::name_of;
using testing::normal;
using testing::share_of;
using testing::step_of;
using testing::unset;

// One group of layers with its ranges, called as a training step does.
struct Group {
  at::Tensor weight, bias;  // bias: undefined for none
  std::vector<int64_t> splits;
  at::Tensor x_range = unset();
  std::vector<at::Tensor> w_ranges, out_ranges;
  OpticalSettings settings;

  Group(at::ScalarType dtype, int64_t inner, std::vector<int64_t> splits_in, bool with_bias)
      : splits(std::move(splits_in)) {
    int64_t columns = 0;
    for (const int64_t n : splits) {
      columns += n;
      w_ranges.push_back(unset());
      out_ranges.push_back(unset());
      settings.streams.push_back(100 + columns);
    }
    weight = normal({columns, inner}, dtype).mul(0.05).add(0.01);
    if (with_bias) bias = normal({columns}, dtype);
    settings.train = true;
    settings.noise = true;
    settings.clock = clock_of(4, 6);
    settings.seed = 9;
  }

  // A copy in another type or place.
  Group to(at::ScalarType dtype, at::DeviceType device = at::kCPU) const {
    Group copy = *this;
    copy.weight = weight.to(device, dtype);
    if (bias.defined()) copy.bias = bias.to(device, dtype);
    copy.x_range = x_range.to(device).clone();
    for (size_t m = 0; m < splits.size(); ++m) {
      copy.w_ranges[m] = w_ranges[m].to(device).clone();
      copy.out_ranges[m] = out_ranges[m].to(device).clone();
    }
    if (settings.clock) copy.settings.clock = settings.clock->to(device);
    return copy;
  }

  at::Tensor operator()(const at::Tensor& x, const OpticalOperand* encoded = nullptr,
                        bool move_weights = true) {
    return optical_linear(x, weight, testing::maybe(bias), x_range, w_ranges, out_ranges, splits,
                          encoded != nullptr ? encoded->list() : std::vector<at::Tensor>(),
                          move_weights, settings);
  }
  at::Tensor composite(const at::Tensor& x) {
    const OpticalOperand encoded = composite::optical_encode({weight, w_ranges, splits, settings});
    return composite::optical_linear_forward({x, weight, encoded.list(), testing::maybe(bias),
                                              x_range, w_ranges, out_ranges, splits, true,
                                              settings});
  }
  std::vector<at::Tensor> ranges() const {
    std::vector<at::Tensor> all{x_range};
    all.insert(all.end(), w_ranges.begin(), w_ranges.end());
    all.insert(all.end(), out_ranges.begin(), out_ranges.end());
    return all;
  }
};

void expect_ranges(const Group& actual, const Group& expected, double tolerance,
                   const std::string& what) {
  const auto a = actual.ranges(), e = expected.ranges();
  for (size_t i = 0; i < a.size(); ++i) {
    const double width = e[i][1].item<double>() - e[i][0].item<double>();
    EXPECT_LE(a[i].to(at::kCPU).sub(e[i].to(at::kCPU)).abs().max().item<double>(),
              tolerance * width)
        << what << ", range " << i;
  }
}

template <class F>
void for_all_groups(F f) {
  const std::vector<std::vector<int64_t>> all_splits = {{40}, {24, 16, 8}, {7, 12}, {300}};
  for (const auto dtype : kKernelTypes) {
    for (const auto& splits : all_splits) {
      for (const int64_t inner : {64, 37}) {
        for (const bool bias : {false, true}) {
          Group group(dtype, inner, splits, bias);
          f(group, normal({3, 17, inner}, dtype).add(0.5),
            name_of(dtype) + " K " + std::to_string(inner) + ", " + std::to_string(splits.size()) +
                " members of " + std::to_string(splits[0]) + (bias ? ", bias" : ""));
        }
      }
    }
  }
}

// Three training calls, which set the ranges and move them, and one outside training. Each call
// after the first starts from the same ranges on both sides.
template <class F>
void compare_calls(Group a, Group b, const at::Tensor& x, at::DeviceType device, F reference,
                   const std::string& what, std::optional<double> share = std::nullopt) {
  const auto dtype = x.scalar_type();
  // The product's own rounding moves an end of the output's range.
  const double ends = device == at::kCUDA && dtype != at::kFloat ? 1e-3 : 2e-5;
  for (int call = 0; call < 4; ++call) {
    const std::string here = what + ", call " + std::to_string(call);
    const at::Tensor input = x.mul(1 + 0.2 * (call % 3));
    for (Group* g : {&a, &b}) {
      g->settings.clock->select(0, 0).fill_(call);
      g->settings.train = call < 3;
      g->settings.ranges_set = call > 0;
    }
    for (size_t m = 0; call > 0 && m < a.splits.size(); ++m) a.out_ranges[m].copy_(b.out_ranges[m]);
    const at::Tensor actual = a(input.to(device)), expected = reference(b, input);
    int64_t begin = 0;
    for (size_t m = 0; m < a.splits.size(); ++m) {
      // A first call quantizes with the range of its own product, rounded as that is.
      const double shift = call > 0 ? 0 : distance(a.out_ranges[m], b.out_ranges[m]);
      expect_levels(actual.narrow(-1, begin, a.splits[m]), expected.narrow(-1, begin, a.splits[m]),
                    step_of(b.out_ranges[m], a.settings.levels),
                    shift > 0 ? 1 : share.value_or(share_of(dtype, device)),
                    here + ", member " + std::to_string(m), shift);
      begin += a.splits[m];
    }
    expect_ranges(a, b, ends, here);
  }
}

TEST(OpticalLinear, CpuAgreesWithTheComposite) {
  for_all_groups([](const Group& group, const at::Tensor& x, const std::string& what) {
    compare_calls(
        group, group.to(x.scalar_type()), x, at::kCPU,
        [](Group& g, const at::Tensor& input) { return g.composite(input); }, what);
  });
}

TEST(OpticalLinear, CudaAgreesWithTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  for_all_groups([](const Group& group, const at::Tensor& x, const std::string& what) {
    compare_calls(
        group.to(x.scalar_type(), at::kCUDA), group, x, at::kCUDA,
        [](Group& g, const at::Tensor& input) { return g(input); }, what);
  });
}

// Of the kernel of product and output, which on Hopper keeps the product in fp32.
double share_on_many_rows(at::ScalarType dtype) {
  return share_of(cuda_runtime()->has_hopper_kernels() ? at::kFloat : dtype, at::kCUDA);
}

// Enough rows for that kernel: whole and
// partial tiles of rows, columns and the reduced dimension.
TEST(OpticalLinear, CudaAgreesWithTheCpuOnManyRows) {
  REFRACT_CUDA_OR_SKIP();
  for (const auto dtype : {at::kBFloat16, at::kHalf}) {
    const double share = share_on_many_rows(dtype);
    for (const std::vector<int64_t>& splits :
         std::vector<std::vector<int64_t>>{{128}, {96}, {128, 32, 160}, {288, 64}}) {
      for (const int64_t inner : {64, 200, 776}) {
        for (int variant = 0; variant < 4; ++variant) {
          Group group(dtype, inner, splits, variant != 1);
          if (variant == 2) group.settings.noise = false;
          if (variant == 3) group.settings.shared_noise = 0.3;
          compare_calls(
              group.to(dtype, at::kCUDA), group, normal({2, 300, inner}, dtype).add(0.5), at::kCUDA,
              [](Group& g, const at::Tensor& input) { return g(input); },
              name_of(dtype) + " K " + std::to_string(inner) + ", " +
                  std::to_string(splits.size()) + " members of " + std::to_string(splits[0]) +
                  ", variant " + std::to_string(variant),
              share);
        }
      }
    }
  }
}

// More tiles than the device holds at once, so that blocks go from one to the next.
TEST(OpticalLinear, CudaAgreesWithTheCpuOnManyTiles) {
  REFRACT_CUDA_OR_SKIP();
  for (const int64_t inner : {64, 136, 512}) {
    Group group(at::kBFloat16, inner, {1024, 32, 480}, true);
    compare_calls(
        group.to(at::kBFloat16, at::kCUDA), group, normal({4, 1000, inner}, at::kBFloat16),
        at::kCUDA, [](Group& g, const at::Tensor& input) { return g(input); },
        "K " + std::to_string(inner), share_on_many_rows(at::kBFloat16));
  }
}

TEST(OpticalLinear, WhatIsNoNumberStaysInItsRowOrColumn) {
  for (const bool cuda : {false, true}) {
    if (cuda && !testing::cuda_unavailable().empty() && !testing::cuda_required()) continue;
    const auto device = cuda ? at::kCUDA : at::kCPU;
    const auto dtype = cuda ? at::kBFloat16 : at::kFloat;
    Group group = Group(dtype, 64, {64, 32}, true).to(dtype, device);
    at::Tensor x = normal({600, 64}, dtype).to(device);
    group(x);
    group.settings.ranges_set = true;
    group.settings.train = false;
    const at::Tensor whole = group(x);
    x.select(0, 70).select(0, 3).fill_(NAN);
    const at::Tensor by_row = group(x);
    EXPECT_TRUE(by_row.select(0, 70).isnan().all().item<bool>());
    EXPECT_TRUE(identical(by_row.narrow(0, 71, 529).cpu(), whole.narrow(0, 71, 529).cpu()));
    x.select(0, 70).select(0, 3).fill_(0);
    group.weight.select(0, 40).select(0, 5).fill_(NAN);
    const at::Tensor by_column = group(x);
    EXPECT_TRUE(by_column.select(1, 40).isnan().all().item<bool>());
    EXPECT_FALSE(by_column.narrow(1, 0, 40).isnan().any().item<bool>());
    EXPECT_FALSE(by_column.narrow(1, 48, 48).isnan().any().item<bool>());
  }
}

TEST(OpticalLinear, OtherSettingsAgreeToo) {
  for (const bool cuda : {false, true}) {
    if (cuda && !testing::cuda_unavailable().empty() && !testing::cuda_required()) continue;
    const auto device = cuda ? at::kCUDA : at::kCPU;
    for (int variant = 0; variant < 6; ++variant) {
      Group group(at::kFloat, 64, {24, 40}, true);
      OpticalSettings& s = group.settings;
      if (variant == 0) s.noise = false;
      if (variant == 1) s.shared_noise = 0.3;
      if (variant == 2) s.clipped_ranges = true;
      if (variant == 3) s.quantiles = {0.01, 0.98};
      if (variant == 4) s.levels = 17;
      if (variant == 5) s.lut_min = 0;
      compare_calls(
          group.to(at::kFloat, device), group, normal({2, 9, 64}, at::kFloat), device,
          [](Group& g, const at::Tensor& input) { return g.composite(input); },
          std::string(cuda ? "CUDA" : "CPU") + ", variant " + std::to_string(variant));
    }
  }
}

TEST(OpticalLinear, IsTheDefinitionInFloat64) {
  Group group(at::kFloat, 96, {64}, true);
  const at::Tensor x = normal({5, 11, 96}, at::kFloat);
  Group wide = group.to(at::kDouble);
  const at::Tensor actual = group(x), expected = wide(x.to(at::kDouble));
  expect_levels(actual, expected.to(at::kFloat), step_of(group.out_ranges[0], 256), 0.004,
                "float64");
}

TEST(OpticalLinear, ComesNearTheDenseLayerWithManyLevels) {
  Group group(at::kFloat, 96, {64}, true);
  group.settings.levels = 2048;
  group.settings.noise = false;
  group.settings.lut_min = 0;
  const at::Tensor x = normal({5, 11, 96}, at::kFloat);
  const at::Tensor dense = at::linear(x, group.weight, group.bias);
  // 96 products with errors of half a level of each operand, and half a level of the output.
  EXPECT_LT(group(x).sub(dense).norm().item<double>() / dense.norm().item<double>(), 3e-3);
}

TEST(OpticalLinear, TheBiasIsAddedAfterwards) {
  Group group(at::kFloat, 32, {16}, true);
  const at::Tensor x = normal({40, 32}, at::kFloat), with = group(x);
  Group without = group;
  without.bias = at::Tensor();
  const at::Tensor level =
      with.sub(group.bias).sub(group.out_ranges[0][0]).div(step_of(group.out_ranges[0], 256));
  EXPECT_LT(level.sub(level.round()).abs().max().item<double>(), 2e-3);
}

TEST(OpticalLinear, GradientsAreTheDenseLayers) {
  for (const auto dtype : testing::kAllTypes) {
    Group group(dtype, 24, {16, 8}, true);
    group.weight.requires_grad_(true);
    group.bias.requires_grad_(true);
    const at::Tensor x = normal({2, 7, 24}, dtype).requires_grad_(true),
                     g = normal({2, 7, 24}, dtype);
    const auto actual = torch::autograd::grad({group(x)}, {x, group.weight, group.bias}, {g});
    const auto expected = torch::autograd::grad({at::linear(x, group.weight, group.bias)},
                                                {x, group.weight, group.bias}, {g});
    testing::expect_all_close(actual, expected, name_of(dtype));
  }
}

TEST(OpticalLinear, FrozenWeightsGetNoGradient) {
  Group group(at::kFloat, 24, {16}, false);
  const at::Tensor x = normal({7, 24}, at::kFloat).requires_grad_(true);
  group(x).sum().backward();
  EXPECT_TRUE(x.grad().defined());
  EXPECT_FALSE(group.weight.grad().defined());
}

TEST(OpticalLinear, AnEncodedWeightIsTheSameWeight) {
  Group group(at::kFloat, 64, {24, 8}, true), other = group.to(at::kFloat);
  const at::Tensor x = normal({9, 64}, at::kFloat);
  const OpticalOperand encoded =
      optical_encode(other.weight, other.w_ranges, other.splits, other.settings);
  EXPECT_TRUE(identical(group(x), other(x, &encoded, true)));
  EXPECT_TRUE(identical(group.w_ranges[1], other.w_ranges[1]));
  const at::Tensor kept = other.w_ranges[0].clone();
  other.weight.mul_(2);
  other(x, &encoded, false);
  EXPECT_TRUE(identical(other.w_ranges[0], kept)) << "reuse moves no weight range";
}

TEST(OpticalLinear, EvaluationMovesNothing) {
  Group group(at::kFloat, 64, {24}, false);
  group.settings.train = false;
  const at::Tensor x = normal({9, 64}, at::kFloat);
  group(x);
  for (const auto& range : group.ranges()) EXPECT_TRUE(identical(range, unset()));
}

TEST(OpticalLinear, OutputRangesComeFromUnclippedValues) {
  for (const bool clipped : {false, true}) {
    Group group(at::kFloat, 64, {24}, false);
    group.settings.clipped_ranges = clipped;
    const at::Tensor x = normal({50, 64}, at::kFloat);
    group(x);
    const double before = step_of(group.out_ranges[0], 256);
    for (int i = 0; i < 20; ++i) group(x.mul(3));
    const double after = step_of(group.out_ranges[0], 256);
    if (clipped) {
      EXPECT_LE(after, before * 1.0001) << "the reference's range can only shrink";
    } else {
      EXPECT_GT(after, before * 2.5);
    }
  }
}

TEST(OpticalLinear, MicroBatchesDrawWhatTheWholeBatchDraws) {
  Group group(at::kFloat, 64, {24, 16}, false);
  const at::Tensor x = normal({8, 5, 64}, at::kFloat);
  group(x);
  group.settings.train = false;
  group.settings.clock = clock_of(1, 0);
  const at::Tensor whole = group(x);
  group.settings.clock = clock_of(1, 3);
  expect_levels(group(x.narrow(0, 3, 4)), whole.narrow(0, 3, 4), step_of(group.out_ranges[0], 256),
                0.001, "a part of the batch");
}

TEST(OpticalLinear, TakesNonContiguousInputs) {
  Group group(at::kFloat, 64, {24}, false), other = group.to(at::kFloat);
  const at::Tensor x = normal({64, 9}, at::kFloat).t();
  EXPECT_TRUE(identical(group(x), other(x.contiguous())));
  other.weight = group.weight.t().contiguous().t();
  EXPECT_TRUE(identical(group(x), other(x)));
}

TEST(OpticalLinear, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({4, 64}, at::kFloat);
  Group group(at::kFloat, 64, {24}, false);
  EXPECT_THROW(group(normal({4, 63}, at::kFloat)), c10::Error);
  EXPECT_THROW(group(x.to(at::kDouble)), c10::Error);
  group.splits = {23};
  EXPECT_THROW(group(x), c10::Error);
  group.splits = {24};
  group.settings.streams.clear();
  EXPECT_THROW(group(x), c10::Error);
  group.settings.noise = false;
  group.x_range = at::empty({2, 2});
  EXPECT_THROW(group(x), c10::Error);
}

TEST(OpticalLinear, NoRowsMoveNothing) {
  Group group(at::kFloat, 64, {24}, false);
  EXPECT_EQ(group(normal({0, 3, 64}, at::kFloat)).sizes(), (at::IntArrayRef{0, 3, 24}));
  EXPECT_TRUE(identical(group.x_range, unset()));
}

// A captured call against eager ones: both give the same bits, so a call's are reproducible too.
void compare_captured(std::vector<int64_t> splits, int64_t tokens) {
  const CudaRuntime& cuda = *cuda_runtime();
  Group group = Group(at::kBFloat16, 64, std::move(splits), false).to(at::kBFloat16, at::kCUDA);
  const at::Tensor x = normal({4, tokens, 64}, at::kBFloat16).to(at::kCUDA);
  for (int i = 0; i < 3; ++i) group(x);
  group.settings.ranges_set = true;
  group(x);
  Group eager = group.to(at::kBFloat16, at::kCUDA);
  at::Tensor y;
  auto graph = cuda.capture([&] { y = group(x); });
  for (int i = 0; i < 3; ++i) {
    x.mul_(1.3);
    group.settings.clock->select(0, 0).fill_(i);
    eager.settings.clock->select(0, 0).fill_(i);
    graph->replay();
    EXPECT_TRUE(identical(y.cpu(), eager(x).cpu())) << i;
    EXPECT_TRUE(identical(group.out_ranges[1].cpu(), eager.out_ranges[1].cpu())) << i;
    EXPECT_TRUE(identical(group.w_ranges[0].cpu(), eager.w_ranges[0].cpu())) << i;
  }
}

// A training call inside a graph asks nothing of the host, and its replays move the ranges.
TEST(OpticalLinear, IsCapturedInAGraph) {
  REFRACT_CUDA_OR_SKIP();
  std::thread([] {
    cuda_runtime()->use_side_stream();
    compare_captured({24, 40}, 8);
    compare_captured({1024, 288}, 1024);  // several tiles a block
  }).join();
}

}  // namespace optical_linear_test
}  // namespace refract
