#include "distributed/world.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <atomic>
#include <vector>

#include "support/errors.h"
#include "support/several_processes.h"

namespace refract {
namespace world_test {

using testing::error_of;
using testing::has;
using testing::in_processes;

class Several : public ::testing::TestWithParam<int64_t> {
 protected:
  void SetUp() override {
    if (!testing::can_run_several()) GTEST_SKIP() << "no Gloo, or AddressSanitizer";
  }
};

TEST_P(Several, AllReduce) {
  in_processes(GetParam(), [](World& world) {
    const auto rank = static_cast<float>(world.rank()), size = static_cast<float>(world.size());
    const at::Tensor sum = at::full({1000}, rank + 1), least = at::full({3}, 10 - rank);
    world.all_reduce_(sum, Reduction::kSum);
    world.all_reduce_(least, Reduction::kMin);
    EXPECT_TRUE(sum.eq(size * (size + 1) / 2).all().item<bool>());
    EXPECT_TRUE(least.eq(11 - size).all().item<bool>());
  });
}

// Row j of process i holds 100 i + j, and becomes row i of process j.
TEST_P(Several, AllToAll) {
  in_processes(GetParam(), [](World& world) {
    const at::Tensor rows = at::arange(world.size(), at::kFloat).unsqueeze(1);
    const at::Tensor in = rows.add(100 * world.rank()).expand({-1, 5}).contiguous();
    const at::Tensor out = at::zeros_like(in);
    world.all_to_all(in, out);
    EXPECT_TRUE(out.equal(rows.mul(100).add(world.rank()).expand({-1, 5})));
  });
}

TEST_P(Several, AllGather) {
  in_processes(GetParam(), [](World& world) {
    const at::Tensor all = at::zeros({world.size(), 3}, at::kDouble);
    world.all_gather(at::full({3}, world.rank() + 0.5, at::kDouble), all);
    const at::Tensor expected =
        at::arange(world.size(), at::kDouble).add(0.5).unsqueeze(1).expand({-1, 3});
    EXPECT_TRUE(all.equal(expected));
    // From its own row.
    all.add_(1);
    const at::Tensor own = all.select(0, world.rank());
    own.mul_(2);
    world.all_gather(own, all);
    EXPECT_TRUE(all.equal(expected.add(1).mul(2)));
  });
}

TEST_P(Several, Broadcast) {
  in_processes(GetParam(), [](World& world) {
    const at::Tensor data = at::full({7}, world.rank() + 3, at::kLong);
    world.broadcast_(data);
    EXPECT_TRUE(data.eq(3).all().item<bool>());
  });
}

TEST_P(Several, ABarrierWaitsForAll) {
  std::atomic<int64_t> arrived = 0, after_leader = 0;
  in_processes(GetParam(), [&](World& world) {
    ++arrived;
    world.barrier();
    EXPECT_EQ(arrived, world.size());
    world.leader_alone([&] { after_leader = 1; });
    EXPECT_EQ(after_leader, 1);
  });
}

TEST_P(Several, AllStopAfterTheSameStep) {
  std::vector<int64_t> stopped(static_cast<size_t>(GetParam()));
  in_processes(GetParam(), [&](World& world) {
    const at::Tensor one = at::full({1}, 1.0F);
    for (int64_t step = 1; step < 100; ++step) {
      world.all_reduce_(one, Reduction::kMin);
      // The last process is told to in its 10th step.
      if (!world.stops_after(step, world.rank() + 1 == world.size() && step >= 10)) continue;
      stopped[static_cast<size_t>(world.rank())] = step;
      break;
    }
  });
  for (const int64_t step : stopped) EXPECT_EQ(step, 11);
}

TEST_P(Several, SaysWhatDiffers) {
  in_processes(GetParam(), [](World& world) {
    world.require_same("the weather", "sun");
    const std::string text = error_of([&] {
      world.require_same("the recipe", world.leader() ? "a = 1\nb = 2\n" : "a = 1\nb = 3\n");
    });
    if (world.leader()) {
      EXPECT_EQ(text, "");
    } else {
      EXPECT_TRUE(has(text, "the recipe differs between the processes: process 0 has 'b = 2'"));
      EXPECT_TRUE(has(text, "has 'b = 3'"));
    }
    world.barrier();
  });
}

INSTANTIATE_TEST_SUITE_P(Processes, Several, ::testing::Values(2, 3, 4));

TEST(World, OneProcessChangesNothing) {
  World& world = World::single();
  const at::Tensor data = at::arange(4, at::kFloat);
  world.all_reduce_(data, Reduction::kSum);
  world.broadcast_(data);
  EXPECT_TRUE(data.equal(at::arange(4, at::kFloat)));
  const at::Tensor all = at::zeros({1, 4});
  world.all_gather(data, all);
  EXPECT_TRUE(all.select(0, 0).equal(data));
  EXPECT_TRUE(world.stops_after(3, true));
  EXPECT_FALSE(world.stops_after(3, false));
  int64_t done = 0;
  world.leader_alone([&] { ++done; });
  world.one_of_each_machine_first([&] { ++done; });
  EXPECT_EQ(done, 2);
}

}  // namespace world_test
}  // namespace refract
