// What the structured kinds share: sizes, starts, taking over, composition, groups, refusals.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "transforms/kind.h"
#include "transforms/one_layer.h"
#include "transforms/structured/factorization.h"
#include "transforms/structured/shapes.h"

namespace refract {
namespace structured_kind_test {

using nlohmann::json;
using testing::expect_same;
using testing::kShapes;
using testing::normal;
using testing::OneLayer;

OneLayer layer_of(const json& table, int64_t in, int64_t out, uint64_t seed = 1) {
  return OneLayer(table.dump(), in, out, seed);
}

TEST(Structured, ParameterCountsAreThePapers) {
  const int64_t N = 24, M = 96, R = 8, B = 4;
  EXPECT_EQ(layer_of({{"kind", "low_rank"}, {"rank", R}}, N, M).arena.count(), (N + M) * R);
  EXPECT_EQ(layer_of({{"kind", "block_dense"}, {"rank", R}, {"blocks", B}}, N, M).arena.count(),
            R * (M + N / B));
  for (const auto& [in, out] : {std::pair(N, M), std::pair(M, N)}) {
    OneLayer shuffle = layer_of({{"kind", "block_shuffle"}, {"blocks", B}}, in, out);
    EXPECT_EQ(shuffle.arena.count(), std::min(N, M) * (N + M) / B);
    EXPECT_EQ(shuffle.layer->multiplications(), shuffle.arena.count());
  }
}

TEST(Structured, NormalStartsHaveTheDenseLayersDeviation) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 64}},
                            json{{"kind", "block_dense"}, {"rank", 64}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}}}) {
    json normal = table;
    normal["init"] = "normal";
    const OneLayer one = layer_of(normal, 256, 256);
    // Of 65,536 elements that share factors; block structures leave gaps with fewer terms.
    const double expected = table["kind"] == "low_rank" ? 0.02 : 0.02 / std::sqrt(2.0);
    EXPECT_NEAR(one.layer->merged().std().item<double>(), expected, 0.1 * expected) << table.dump();
  }
}

// What a layer of the kind can hold it takes over without a loss, whatever its factors were.
TEST(Structured, AWeightOfTheKindIsTakenOverExactly) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 4}, {"init", "xavier"}},
                            json{{"kind", "block_dense"}, {"rank", 4}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 4}}}) {
    for (const auto& [in, out] : kShapes) {
      const OneLayer one = layer_of(table, in, out), other = layer_of(table, in, out, 2);
      EXPECT_LT(other.layer->take_over(one.layer->merged()), 1e-10) << table.dump();
      expect_same(other.layer->merged(), one.layer->merged());
    }
  }
}

// No small step of the factors comes nearer: the projection is a minimum.
TEST(Structured, TheBlockProjectionsAreLocallyBest) {
  for (const json& table : {json{{"kind", "block_dense"}, {"rank", 4}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 4}}}) {
    OneLayer one = layer_of(table, 8, 16);
    const at::Tensor weight = normal({16, 8});
    const double error = one.layer->take_over(weight);
    EXPECT_GT(error, 0.1);
    for (int i = 0; i < 20; ++i) {
      const at::Tensor kept = one.arena.master().clone();
      one.arena.master().add_(normal({one.arena.master().numel()}), 1e-3);
      EXPECT_GT(relative_error(one.layer->merged(), weight), error) << table.dump();
      one.arena.master().copy_(kept);
    }
  }
}

TEST(Structured, FactorsMayBeOfAnyKind) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 4}},
                            json{{"kind", "block_dense"}, {"rank", 4}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}}}) {
    json over = table;
    over["over"] = {{"kind", "lora"}, {"r", 2}};
    const OneLayer plain = layer_of(table, 8, 16), composed = layer_of(over, 8, 16);
    const at::Tensor weight = normal({16, 8}), x = normal({5, 8});
    EXPECT_NEAR(plain.layer->take_over(weight), composed.layer->take_over(weight), 1e-12);
    expect_same(composed.forward(x), plain.forward(x));
    expect_same(composed.layer->merged(), plain.layer->merged());
    EXPECT_GT(composed.arena.count(), plain.arena.count());
  }
}

// A group of one layer, bias and activation and all, is what composition makes of it, and so are
// its gradients.
TEST(Structured, GroupsEqualTheirComposition) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 4}},
                            json{{"kind", "block_dense"}, {"rank", 4}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}}}) {
    for (const Activation activation :
         {Activation::kNone, Activation::kGelu, Activation::kGeluTanh}) {
      for (const bool bias : {true, false}) {
        SCOPED_TRACE(fmt::format("{} {} {}", table.dump(), static_cast<int>(activation), bias));
        const auto kind = make_kind(table.dump(), "the test");
        ParameterArena arena;
        BufferStore buffers;
        std::vector<TransformedLayer> transformed;
        const LinearSpec spec{"layer", 8, 16, bias};
        const auto group = kind->projections({arena, buffers, transformed}, {{spec}, activation});
        ASSERT_TRUE(group);
        ASSERT_EQ(transformed.size(), 1u);
        EXPECT_EQ(transformed[0].kind, table["kind"].get<std::string>());
        arena.allocate(at::kCPU, at::kDouble, at::kDouble);
        arena.initialize(1);
        transformed[0].layer->initialize(1);
        at::Tensor b;
        if (bias) {
          arena.value(arena.find("layer.bias")).copy_(normal({16}));
          b = arena.leaf(arena.find("layer.bias"));
        }
        const at::Tensor x = normal({2, 3, 8}), g = normal({2, 3, 16});
        const auto gradients = [&](const at::Tensor& y) {
          arena.grads().zero_();
          y.backward(g);
          return arena.grads().clone();
        };
        const at::Tensor fused = group->forward({}, x);
        const at::Tensor composed =
            apply_epilogue(transformed[0].layer->forward({}, x), b, activation);
        expect_same(fused.detach(), composed.detach());
        expect_same(gradients(fused), gradients(composed));
      }
    }
  }
}

// The published start: N(0, 1 / inputs) for each factor, a block's inputs where it has blocks.
TEST(Structured, XavierHasTheVarianceOfOneOverTheInputs) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 100}},
                            json{{"kind", "block_dense"}, {"rank", 100}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}}}) {
    json drawn = table;
    drawn["init"] = "xavier";
    OneLayer one = layer_of(drawn, 400, 300);
    for (const char* name : {"layer.V.weight", "layer.U.weight"}) {
      const at::Tensor factor = one.value(name);
      const double inputs = static_cast<double>(factor.size(-1));
      const double variance = factor.square().mean().item<double>();
      // Five deviations of the mean of n squares of normal numbers.
      EXPECT_NEAR(variance * inputs, 1, 5 * std::sqrt(2.0 / static_cast<double>(factor.numel())))
          << table.dump() << " " << name;
    }
  }
}

std::string complaint(const json& table, int64_t in, int64_t out) {
  try {
    layer_of(table, in, out);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Structured, ImpossibleShapesAreRefusedWithWhatWouldDo) {
  EXPECT_NE(complaint({{"kind", "low_rank"}, {"rank", 9}}, 8, 16).find("1 to 8 would do"),
            std::string::npos);
  EXPECT_NE(complaint({{"kind", "block_shuffle"}, {"blocks", 5}}, 12, 8).find("1, 2 or 4 would do"),
            std::string::npos);
  EXPECT_NE(complaint({{"kind", "block_dense"}, {"rank", 6}, {"blocks", 3}}, 8, 16)
                .find("1 or 2 would do"),
            std::string::npos);
  EXPECT_NE(complaint({{"kind", "block_dense"}, {"rank", 6}, {"blocks", 4}}, 8, 16)
                .find("blocks may be 1, 2, 3 or 6"),
            std::string::npos);
  EXPECT_NE(complaint({{"kind", "block_dense"}, {"rank", 16}, {"blocks", 2}}, 8, 16)
                .find("a multiple of 2 up to 8 would do"),
            std::string::npos);
  EXPECT_NE(complaint({{"kind", "low_rank"}, {"rank", 2}, {"over", "no_such"}}, 8, 16)
                .find("there is no kind"),
            std::string::npos);
}

}  // namespace structured_kind_test
}  // namespace refract
