// Sums over groups and processes, and the slices in which they are exchanged.
#include "train/together/gradient_sum.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <vector>

#include "core/random.h"
#include "support/several_processes.h"
#include "train/together/slices.h"

namespace refract {
namespace gradient_sum_test {

using testing::can_run_several;
using testing::in_processes;

// Seven lines of 64 elements: slices of 2 and 4 processes are not all alike.
constexpr int64_t kSize = 7 * 64;

at::Tensor gradient_of_group(int64_t group) {
  RandomStream random(static_cast<uint64_t>(group), "gradient");
  at::Tensor values = at::empty({kSize});
  auto* out = values.mutable_data_ptr<float>();
  for (int64_t i = 0; i < kSize; ++i) out[i] = static_cast<float>(random.uniform() - 0.5);
  return values;
}

// ((g0 + g1) + (g2 + g3)) + ((g4 + g5) + (g6 + g7)).
at::Tensor tree_of(int64_t first, int64_t count) {
  if (count == 1) return gradient_of_group(first);
  return tree_of(first, count / 2).add(tree_of(first + count / 2, count / 2));
}

BatchShare share_of(const World& world, int64_t groups, bool fixed) {
  BatchShare share;
  share.fixed_groups = fixed;
  share.groups = groups / world.size();
  share.micro_batch = 1;
  return share;
}

// This process's groups, added up.
at::Tensor own_groups(GradientSum& sum, const World& world, int64_t groups) {
  at::Tensor grads = at::zeros({kSize});
  const int64_t own = groups / world.size();
  for (int64_t i = 0; i < own; ++i) {
    grads.add_(gradient_of_group(world.rank() * own + i));
    sum.add_group(i, grads);
  }
  return grads;
}

TEST(GradientSum, IsThatOfTheTreeInPiecesOfAnySize) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  const at::Tensor expected = tree_of(0, 8);
  for (const int64_t processes : {1, 2, 4, 8}) {
    for (const int64_t buffer : {processes, processes * 50, int64_t{1} << 20}) {
      in_processes(processes, [&](World& world) {
        GradientSum sum(share_of(world, 8, true), world, at::kCPU, kSize, false, buffer);
        const at::Tensor grads = own_groups(sum, world, 8);
        sum.add_processes(grads);
        EXPECT_TRUE(at::equal(grads, expected)) << processes << " processes, buffer " << buffer;
        const at::Tensor norm = sum.norm({grads});
        EXPECT_NEAR(norm.item<double>(), expected.norm().item<double>(), 1e-5);
      });
    }
  }
}

TEST(GradientSum, LeavesEachProcessItsSliceAndGathersThem) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  const at::Tensor expected = tree_of(0, 8);
  for (const int64_t processes : {2, 4, 8}) {
    std::vector<float> norms(static_cast<size_t>(processes));
    in_processes(processes, [&](World& world) {
      GradientSum sum(share_of(world, 8, true), world, at::kCPU, kSize, true, processes * 50);
      const at::Tensor grads = own_groups(sum, world, 8);
      sum.add_processes(grads);
      norms[static_cast<size_t>(world.rank())] = sum.norm({grads}).item<float>();
      const Range own = sum.slices(kSize).of(world.rank());
      const at::Tensor slice = grads.narrow(0, own.begin, own.size()).clone();
      EXPECT_TRUE(at::equal(slice, expected.narrow(0, own.begin, own.size())));
      const at::Tensor host = sum.gathered_on_host(slice, kSize);
      EXPECT_EQ(host.defined(), world.leader());
      if (host.defined()) {
        EXPECT_TRUE(at::equal(host, expected));
      }
      sum.gather(grads);
      EXPECT_TRUE(at::equal(grads, expected));
    });
    World alone;
    GradientSum sum(share_of(alone, 8, true), alone, at::kCPU, kSize, false);
    for (const float norm : norms) EXPECT_EQ(norm, sum.norm({expected}).item<float>());
  }
}

// Without groups any number of processes divides the work, in an order of the sum that is its own.
TEST(GradientSum, DividesAmongThreeProcesses) {
  if (!can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  in_processes(3, [&](World& world) {
    GradientSum sum(share_of(world, 3, false), world, at::kCPU, kSize, true, 3 * 50);
    const at::Tensor grads = own_groups(sum, world, 3);
    sum.add_processes(grads);
    sum.gather(grads);
    at::Tensor expected = at::zeros({kSize});
    for (int64_t group = 0; group < 3; ++group) expected.add_(gradient_of_group(group));
    EXPECT_TRUE(at::allclose(grads, expected, 0, 1e-6));
    EXPECT_GT(grads.abs().sum().item<double>(), 1);
  });
}

TEST(Slices, CoverEverythingOnceInAlignedUnits) {
  for (const int64_t n : {int64_t{0}, int64_t{64}, int64_t{448}, int64_t{1000 * 64}}) {
    for (const int64_t units : {1, 2, 8, 64}) {
      for (const int64_t processes : {1, 2, 8, 64}) {
        if (units % processes != 0) continue;
        const Slices slices(n, units, processes);
        int64_t covered = 0;
        for (int64_t j = 0; j < processes; ++j) {
          const Range slice = slices.of(j);
          EXPECT_EQ(slice.begin, covered);
          EXPECT_EQ(slice.begin % 64, 0);
          EXPECT_EQ(slices.unit(j * slices.units_per_process()).begin, slice.begin);
          int64_t pieces = 0;
          for (int64_t at = 0; at < slices.width(); at += 50)
            pieces += slices.piece(j, at, 50).size();
          EXPECT_EQ(pieces, slice.size());
          covered = slice.end;
        }
        EXPECT_EQ(covered, n);
      }
    }
  }
}

}  // namespace gradient_sum_test
}  // namespace refract
