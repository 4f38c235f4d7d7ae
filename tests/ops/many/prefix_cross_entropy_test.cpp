// Samples for tests/parity/test_every_op.py:
// opcheck: prefix_cross_entropy(plain(2, 5, 16), plain(2, 13, 16), torch.tensor([0, 0, 3, 4]),
//   torch.tensor([2, 12, 0, 1]), torch.tensor([1, 5, 2, 1]), 13)
#include "ops/many/prefix_cross_entropy.h"

#include <ATen/ops/randint.h>
#include <ATen/ops/zeros.h>

#include "ops/many/batched_cross_entropy.h"
#include "support/compare.h"
#include "support/cuda_guard.h"

namespace refract {
namespace many_prefix_cross_entropy_test {

using testing::identical;
using testing::name_of;
using testing::normal;

struct Case {
  int64_t models, nodes, width, classes, padded, pairs;
};
// Rows and classes within a block, at its end and beside it; a width that our tiles do not take.
const Case kCases[] = {{1, 70, 64, 65, 128, 200},
                       {3, 256, 16, 1024, 1024, 300},
                       {2, 257, 32, 2100, 2176, 500},
                       {2, 9, 13, 30, 32, 20}};

struct Inputs {
  at::Tensor x, weight, rows, targets, counts;
};

Inputs inputs(const Case& c, at::ScalarType dtype) {
  const auto draw = [&](int64_t high) { return at::randint(high, {c.pairs}, at::kLong); };
  return {normal({c.models, c.nodes, c.width}, dtype), normal({c.models, c.padded, c.width}, dtype),
          std::get<0>(draw(c.nodes).sort()), draw(c.classes), draw(9).add(1)};
}

BatchedCrossEntropy loss_of(const Inputs& in, int64_t classes) {
  return prefix_cross_entropy(in.x, in.weight, in.rows, in.targets, in.counts, classes);
}

// A sum of 200 losses and more, in float64 from logits of fp32 in either form: what the table
// allows a logit is allowed the mean.
TEST(PrefixCrossEntropy, CpuAgreesWithComposite) {
  for (const Case& c : kCases) {
    for (const auto dtype : testing::kAllTypes) {
      const Inputs in = inputs(c, dtype);
      const auto found = loss_of(in, c.classes);
      const auto expected = composite::prefix_cross_entropy(
          {in.x, in.weight, in.rows, in.targets, in.counts, c.classes});
      const std::string what = std::to_string(c.classes) + " classes " + name_of(dtype);
      testing::expect_close(found.loss_sum.to(at::kFloat), expected.loss_sum.to(at::kFloat), what);
      EXPECT_TRUE(identical(found.num_correct, expected.num_correct)) << what;
    }
  }
}

// A pair that counts n times is n rows of the loss that has one target a row.
TEST(PrefixCrossEntropy, IsTheLossOfRepeatedRows) {
  const Case c = kCases[0];
  Inputs in = inputs(c, at::kFloat);
  // Some rows are right: their target is made the arg max.
  in.targets.narrow(0, 0, 50).copy_(in.x.select(0, 0)
                                        .matmul(in.weight.select(0, 0).narrow(0, 0, 65).t())
                                        .argmax(-1)
                                        .index_select(0, in.rows.narrow(0, 0, 50)));
  const at::Tensor each = in.rows.repeat_interleave(in.counts);
  const auto expected = batched_linear_cross_entropy(
      in.x.index_select(1, each), in.weight, in.targets.repeat_interleave(in.counts), c.classes);
  const auto found = loss_of(in, c.classes);
  testing::expect_close(found.loss_sum.to(at::kFloat), expected.loss_sum.to(at::kFloat),
                        "repeated");
  EXPECT_TRUE(identical(found.num_correct, expected.num_correct));
  EXPECT_GE(found.num_correct.item<int64_t>(), 50);
}

TEST(PrefixCrossEntropy, TakesTheLowestOfEqualClasses) {
  const at::Tensor x = at::zeros({1, 3, 16}), weight = at::zeros({1, 1500, 16});
  const at::Tensor rows = at::zeros({3}, at::kLong), counts = rows.add(2);
  at::Tensor targets = at::zeros({3}, at::kLong);
  targets[1] = 1;
  targets[2] = 1100;
  const auto found = prefix_cross_entropy(x, weight, rows, targets, counts, 1500);
  EXPECT_EQ(found.num_correct.item<int64_t>(), 2);
  EXPECT_NEAR(found.loss_sum.item<double>(), 6 * std::log(1500.0), 1e-5);
}

TEST(PrefixCrossEntropy, TakesModelsThatLieApart) {
  const Case c = kCases[1];
  Inputs in = inputs(c, at::kFloat);
  const auto dense = loss_of(in, c.classes);
  in.weight = at::zeros({c.models, c.padded + 7, c.width}).narrow(1, 3, c.padded).copy_(in.weight);
  EXPECT_TRUE(identical(loss_of(in, c.classes).loss_sum, dense.loss_sum));
}

TEST(PrefixCrossEntropy, CompositeRunsOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  const Case c = kCases[0];
  const Inputs in = inputs(c, at::kFloat);
  const Inputs there{in.x.cuda(), in.weight.cuda(), in.rows.cuda(), in.targets.cuda(),
                     in.counts.cuda()};
  testing::expect_close(loss_of(there, c.classes).loss_sum.cpu().to(at::kFloat),
                        loss_of(in, c.classes).loss_sum.to(at::kFloat), "CUDA");
}

TEST(PrefixCrossEntropy, RefusesWhatDoesNotFit) {
  // The second one is left to the composite form, for its width.
  for (const Case& c : {kCases[0], kCases[3]}) {
    for (const auto dtype : {at::kFloat, at::kDouble}) {
      const Inputs good = inputs(c, dtype);
      const auto refuses = [&](auto change) {
        Inputs in = good;
        change(in);
        EXPECT_THROW(loss_of(in, c.classes), c10::Error) << c.width << " " << name_of(dtype);
      };
      refuses([](Inputs& in) { in.rows = in.rows.flip(0); });
      refuses([&](Inputs& in) { in.rows = in.rows.add(c.nodes); });
      refuses([&](Inputs& in) { in.rows = in.rows.sub(c.nodes); });
      refuses([&](Inputs& in) { in.targets = in.targets.add(c.classes); });
      refuses([&](Inputs& in) { in.targets = in.targets.sub(c.classes); });
      // Of single pairs, where the place of a logit would lie in the row behind or before.
      const auto with = [&](Inputs& in, int64_t pair, int64_t target) {
        in.targets = in.targets.clone();
        in.targets[pair] = target;
      };
      refuses([&](Inputs& in) { with(in, 0, c.classes); });
      refuses([&](Inputs& in) { with(in, c.pairs - 1, -1); });
    }
  }
}

TEST(PrefixCrossEntropy, RefusesOtherShapesAndTypes) {
  const Case c = kCases[0];
  const Inputs good = inputs(c, at::kFloat);
  const auto refuses = [&](auto change) {
    Inputs in = good;
    change(in);
    EXPECT_THROW(loss_of(in, c.classes), c10::Error);
  };
  refuses([](Inputs& in) { in.targets = in.targets.to(at::kInt); });
  refuses([](Inputs& in) { in.counts = in.counts.narrow(0, 0, 3); });
  refuses([](Inputs& in) { in.weight = in.weight.narrow(2, 0, 32); });
  EXPECT_THROW(loss_of(good, 129), c10::Error);
}

}  // namespace many_prefix_cross_entropy_test
}  // namespace refract
