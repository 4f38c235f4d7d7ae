// The structured kinds against their definitions, written out element by element.
#include <ATen/TensorOperators.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/linalg_svdvals.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "support/errors.h"
#include "transforms/kind.h"
#include "transforms/structured/factorization.h"

namespace refract {
namespace {

using nlohmann::json;

at::Tensor normal(at::IntArrayRef sizes) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble));
}

struct Layer {
  Layer(const json& table, int64_t in, int64_t out, uint64_t seed = 1)
      : kind(make_kind(table.dump(), "the test")) {
    const LinearSpec spec{"layer", in, out};
    kind->check_shape(spec);
    layer = kind->linear({arena, buffers, transformed}, spec);
    arena.allocate(at::kCPU, at::kDouble, at::kDouble);
    arena.initialize(seed);
    layer->initialize(seed);
  }
  at::Tensor value(const char* name) { return arena.value(arena.find(name)); }
  at::Tensor forward(const at::Tensor& x) const { return layer->forward({}, x); }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Kind> kind;
  std::unique_ptr<LinearLayer> layer;
};

// The dense matrices of the definitions (Wei et al., section 3.1), element by element.
at::Tensor dense_block_dense(const at::Tensor& v, const at::Tensor& u) {
  const int64_t B = v.size(0), r = v.size(1), n = v.size(2), M = u.size(0);
  at::Tensor w = at::zeros({M, B * n}, v.options());
  for (int64_t i = 0; i < M; ++i) {
    for (int64_t k = 0; k < B * n; ++k) {
      for (int64_t f = 0; f < r; ++f) w[i][k] += u[i][(k / n) * r + f] * v[k / n][f][k % n];
    }
  }
  return w;
}

at::Tensor dense_block_shuffle(const at::Tensor& v, const at::Tensor& u) {
  const int64_t B = v.size(0), h = v.size(1), n = v.size(2), m = u.size(1);
  at::Tensor w = at::zeros({B * m, B * n}, v.options());
  for (int64_t k = 0; k < B * n; ++k) {
    for (int64_t row = 0; row < h; ++row) {
      const int64_t feature = (k / n) * h + row;                  // of the first product
      const int64_t block = feature % B, position = feature / B;  // where the shuffle puts it
      for (int64_t j = 0; j < m; ++j) {
        w[j * B + block][k] += u[block][j][position] * v[k / n][row][k % n];
      }
    }
  }
  return w;
}

void expect_same(const at::Tensor& a, const at::Tensor& b, double tolerance = 1e-10) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance);
}

const std::pair<int64_t, int64_t> kShapes[] = {{8, 16}, {16, 8}, {12, 12}, {24, 8}, {12, 36}};

template <class F>
void for_all(const char* kind, const std::vector<int64_t>& blocks, int64_t rank, const F& test) {
  for (const auto& [in, out] : kShapes) {
    for (const int64_t B : blocks) {
      for (const char* init : {"svd", "ortho", "xavier", "normal"}) {
        SCOPED_TRACE(fmt::format("{} [{}, {}] B {} {}", kind, out, in, B, init));
        json table = {{"kind", kind}, {"init", init}};
        if (B > 0) table["blocks"] = B;
        if (rank > 0) table["rank"] = rank;
        Layer one(table, in, out);
        test(one, normal({2, 3, in}));
      }
    }
  }
}

TEST(Structured, LowRankEqualsItsDefinition) {
  for_all("low_rank", {0}, 4, [](Layer& one, const at::Tensor& x) {
    const at::Tensor dense = at::matmul(one.value("layer.U.weight"), one.value("layer.V.weight"));
    expect_same(one.forward(x), at::linear(x, dense));
    expect_same(one.layer->merged(), dense);
  });
}

TEST(Structured, BlockDenseEqualsItsDefinition) {
  for_all("block_dense", {2, 4}, 8, [](Layer& one, const at::Tensor& x) {
    const at::Tensor dense =
        dense_block_dense(one.value("layer.V.weight"), one.value("layer.U.weight"));
    expect_same(one.forward(x), at::linear(x, dense));
    expect_same(one.layer->merged(), dense);
  });
}

// Also where B squared doesn't divide the inner features, so that blocks share unequal numbers of
// them.
TEST(Structured, BlockShuffleEqualsItsDefinition) {
  for_all("block_shuffle", {2, 4}, 0, [](Layer& one, const at::Tensor& x) {
    const at::Tensor dense =
        dense_block_shuffle(one.value("layer.V.weight"), one.value("layer.U.weight"));
    expect_same(one.forward(x), at::linear(x, dense));
    expect_same(one.layer->merged(), dense);
  });
}

TEST(Structured, ParameterCountsAreThePapers) {
  const int64_t N = 24, M = 96, R = 8, B = 4;
  EXPECT_EQ(Layer({{"kind", "low_rank"}, {"rank", R}}, N, M).arena.count(), (N + M) * R);
  EXPECT_EQ(Layer({{"kind", "block_dense"}, {"rank", R}, {"blocks", B}}, N, M).arena.count(),
            R * (M + N / B));
  for (const auto& [in, out] : {std::pair(N, M), std::pair(M, N)}) {
    Layer shuffle({{"kind", "block_shuffle"}, {"blocks", B}}, in, out);
    EXPECT_EQ(shuffle.arena.count(), std::min(N, M) * (N + M) / B);
    EXPECT_EQ(shuffle.layer->multiplications(), shuffle.arena.count());
  }
}

TEST(Structured, LowRankStartsFromTheSvdOfTheDenseLayersOwnWeight) {
  Layer one({{"kind", "low_rank"}, {"rank", 8}}, 8, 16, 7);
  const at::Tensor dense = draw_normal({16, 8}, 7, "init:layer.weight", 0.02).to(at::kDouble);
  expect_same(one.layer->merged(), dense);  // of full rank nothing is lost
  const at::Tensor u = one.value("layer.U.weight"), v = one.value("layer.V.weight");
  // Both carry the roots of the singular values.
  expect_same(at::matmul(u.t(), u), at::matmul(v, v.t()));
}

TEST(Structured, OrthonormalStartsAreOrthonormalPerBlock) {
  Layer one({{"kind", "block_shuffle"}, {"blocks", 2}}, 8, 16);
  for (const char* name : {"layer.V.weight", "layer.U.weight"}) {
    const at::Tensor w = one.value(name);
    const at::Tensor gram =
        w.size(1) < w.size(2) ? at::matmul(w, w.transpose(1, 2)) : at::matmul(w.transpose(1, 2), w);
    for (int64_t b = 0; b < 2; ++b) {
      expect_same(gram[b], at::eye(gram.size(1), gram.options()));
    }
  }
}

TEST(Structured, NormalStartsHaveTheDenseLayersDeviation) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 64}},
                            json{{"kind", "block_dense"}, {"rank", 64}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}}}) {
    json normal = table;
    normal["init"] = "normal";
    Layer one(normal, 256, 256);
    // Of 65,536 elements that share factors; block structures leave gaps with fewer terms.
    const double expected = table["kind"] == "low_rank" ? 0.02 : 0.02 / std::sqrt(2.0);
    EXPECT_NEAR(one.layer->merged().std().item<double>(), expected, 0.1 * expected) << table.dump();
  }
}

TEST(Structured, LowRankTakesOverByTheTruncatedSvd) {
  for (const auto& [in, out] : kShapes) {
    Layer one({{"kind", "low_rank"}, {"rank", 3}}, in, out);
    const at::Tensor weight = normal({out, in});
    const at::Tensor s = at::linalg_svdvals(weight);
    const double best = s.slice(0, 3).norm().item<double>() / s.norm().item<double>();
    EXPECT_NEAR(one.layer->take_over(weight), best, 1e-9);  // Eckart and Young
  }
}

// What a layer of the kind can hold it takes over without a loss, whatever its factors were.
TEST(Structured, AWeightOfTheKindIsTakenOverExactly) {
  for (const json& table : {json{{"kind", "low_rank"}, {"rank", 4}, {"init", "xavier"}},
                            json{{"kind", "block_dense"}, {"rank", 4}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 4}}}) {
    for (const auto& [in, out] : kShapes) {
      Layer one(table, in, out), other(table, in, out, 2);
      EXPECT_LT(other.layer->take_over(one.layer->merged()), 1e-10) << table.dump();
      expect_same(other.layer->merged(), one.layer->merged());
    }
  }
}

// No small step of the factors comes nearer: the projection is a minimum.
TEST(Structured, TheBlockProjectionsAreLocallyBest) {
  for (const json& table : {json{{"kind", "block_dense"}, {"rank", 4}, {"blocks", 2}},
                            json{{"kind", "block_shuffle"}, {"blocks", 4}}}) {
    Layer one(table, 8, 16);
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
    Layer plain(table, 8, 16), composed(over, 8, 16);
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

std::string complaint(const json& table, int64_t in, int64_t out) {
  return testing::error_of([&] { Layer one(table, in, out); });
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

TEST(Structured, TruncatedSvdPadsRanksBeyondTheFullOne) {
  const at::Tensor weight = normal({3, 4, 6});
  const auto [u, v] = truncated_svd(weight, 5);
  EXPECT_EQ(u.sizes(), (std::vector<int64_t>{3, 4, 5}));
  expect_same(at::matmul(u, v), weight);
  const auto [zero_u, zero_v] = truncated_svd(at::zeros({4, 6}, weight.options()), 2);
  expect_same(at::matmul(zero_u, zero_v), at::zeros({4, 6}, weight.options()), 1e-300);
}

}  // namespace
}  // namespace refract
