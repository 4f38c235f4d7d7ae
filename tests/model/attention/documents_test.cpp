// Isolated documents: a window of several is computed as each of them by itself.
#include "model/attention/documents.h"

#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "model/backward/recompute.h"
#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace documents_test {

constexpr int64_t kBegin = 5;  // begins a document

at::Tensor longs(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

// Two windows of twelve tokens: documents of 4, 1, 5 and 2 tokens, and of 1, 8 and 3.
at::Tensor windows() {
  return longs({3, 1,      4, 1, kBegin, kBegin, 9, 2, 6, 8,      kBegin, 3,  //
                9, kBegin, 7, 9, 3,      2,      3, 8, 4, kBegin, 6,      2})
      .view({2, 12});
}

// Row, first token, tokens.
struct Piece {
  int64_t row, begin, length;
};
const std::vector<Piece>& pieces() {
  static const std::vector<Piece> all = {{0, 0, 4}, {0, 4, 1}, {0, 5, 5}, {0, 10, 2},
                                         {1, 0, 1}, {1, 1, 8}, {1, 9, 3}};
  return all;
}

at::Tensor cut(const at::Tensor& x, const Piece& piece) {
  return x.narrow(0, piece.row, 1).narrow(1, piece.begin, piece.length).contiguous();
}

TEST(Documents, LieWhereTheirFirstTokensAre) {
  const Documents found = documents_of(windows(), kBegin);
  EXPECT_EQ(found.lengths, (std::vector<int64_t>{4, 1, 5, 2, 1, 8, 3}));
  EXPECT_TRUE(at::equal(found.places(), longs({0, 1, 2, 3, 0, 0, 1, 2, 3, 4, 0, 1,  //
                                               0, 0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 2})));
  const at::Tensor same = found.same();
  ASSERT_EQ(same.sizes(), (std::vector<int64_t>{2, 1, 12, 12}));
  EXPECT_EQ(same.select(0, 0).sum().item<int64_t>(), 4 * 4 + 1 + 5 * 5 + 2 * 2);
  EXPECT_EQ(same.select(0, 1).sum().item<int64_t>(), 1 + 8 * 8 + 3 * 3);
  EXPECT_EQ(documents_of(windows(), 12).lengths, (std::vector<int64_t>{12, 12}));
}

// Without dropout; what it does to a window depends on the window.
std::vector<std::pair<std::string, ModelConfig>> settings() {
  auto all = testing::every_setting();
  for (auto& [name, config] : all)
    config.dropout = config.attention_dropout = config.embedding_dropout = 0;
  return all;
}

TEST(Documents, HaveTheLogitsOfEachByItself) {
  for (const auto& [name, config] : settings()) {
    const auto decoder = testing::make_decoder(config, at::kDouble);
    std::vector<at::Tensor> alone;
    for (const Piece& piece : pieces())
      alone.push_back(decoder->logits(decoder->hidden({}, cut(windows(), piece))));
    const at::Tensor joined = decoder->logits(decoder->hidden({}, windows()));
    decoder->isolate_documents(kBegin);
    const at::Tensor isolated = decoder->logits(decoder->hidden({}, windows()));
    for (size_t i = 0; i < alone.size(); ++i)
      EXPECT_TRUE(at::allclose(cut(isolated, pieces()[i]), alone[i], 1e-12, 1e-12)) << name << i;
    EXPECT_FALSE(at::allclose(isolated, joined, 1e-3, 1e-3)) << name;
    decoder->isolate_documents(std::nullopt);
    EXPECT_TRUE(at::equal(decoder->logits(decoder->hidden({}, windows())), joined)) << name;
  }
}

// The loss of windows is the sum over documents, and so is its gradient; also where layers are
// computed again in the backward pass.
TEST(Documents, HaveTheGradientsOfEachByItself) {
  for (const auto& [name, config] : settings()) {
    const auto decoder = testing::make_decoder(config, at::kDouble);
    const at::Tensor targets = testing::tokens_for(config, 2, 12);
    const auto gradient = [&](auto&& loss) {
      decoder->arena().grads().zero_();
      loss();
      return decoder->arena().grads().clone();
    };
    ForwardContext context;
    context.training = true;
    context.clock = longs({0, 0});
    const at::Tensor alone = gradient([&] {
      for (const Piece& piece : pieces())
        decoder->loss(context, cut(windows(), piece), cut(targets, piece)).sum.backward();
    });
    decoder->isolate_documents(kBegin);
    for (const Recompute what : {Recompute::kNone, Recompute::kLayer}) {
      const RecomputeScope scope(what);
      const at::Tensor isolated =
          gradient([&] { decoder->loss(context, windows(), targets).sum.backward(); });
      EXPECT_GT(isolated.abs().max().item<double>(), 1e-3) << name;
      EXPECT_TRUE(at::allclose(isolated, alone, 1e-10, 1e-10)) << name;
    }
  }
}

// The mask, which devices take that don't tell the host where documents lie.
TEST(Documents, AMaskPartsThemToo) {
  for (const int64_t window : {0, 3}) {
    AttentionSpec spec;
    spec.name = "attention";
    spec.num_heads = 4;
    spec.num_kv_heads = 2;
    spec.head_dim = 4;
    spec.scale = 0.5;
    spec.window = window;
    SdpaAttention attention(spec);
    const at::Tensor qkv = at::randn({2, 12, 32}, at::kDouble);
    Documents documents = documents_of(windows(), kBegin);
    const at::Tensor apart = attention.forward_documents({}, qkv, documents);
    documents.lengths.clear();
    EXPECT_TRUE(at::allclose(attention.forward_documents({}, qkv, documents), apart, 1e-12, 1e-12));
    EXPECT_FALSE(at::allclose(attention.forward_joint({}, spec, qkv), apart, 1e-3, 1e-3));
  }
}

// With dropout no position of a document has a path from another one.
TEST(Documents, DoNotSeeEachOtherUnderDropout) {
  ModelConfig config = testing::small_gpt2();
  config.attention_dropout = 0.2;
  const auto decoder = testing::make_decoder(config, at::kDouble);
  decoder->isolate_documents(kBegin);
  ForwardContext context;
  context.training = true;
  context.clock = longs({0, 0});
  at::Tensor changed = windows();
  const at::Tensor before = decoder->hidden(context, changed);
  changed[0][2] = 11;  // of the first document
  const at::Tensor after = decoder->hidden(context, changed);
  EXPECT_TRUE(at::equal(before.narrow(1, 4, 8), after.narrow(1, 4, 8)));
  EXPECT_FALSE(at::equal(before.narrow(1, 2, 2), after.narrow(1, 2, 2)));
}

// Decoding continues one text, whatever it holds.
TEST(Documents, ACacheIsOneText) {
  const ModelConfig config = testing::small_llama();
  const auto decoder = testing::make_decoder(config, at::kDouble);
  const auto cached = [&] {
    KvCache cache = decoder->make_cache(2, 12);
    ForwardContext context;
    context.cache = &cache;
    return decoder->hidden(context, windows());
  };
  const at::Tensor joined = cached();
  decoder->isolate_documents(kBegin);
  EXPECT_TRUE(at::equal(cached(), joined));
}

class OtherAttention : public AttentionCore {
 public:
  at::Tensor forward(const ForwardContext&, const at::Tensor& q, const at::Tensor&,
                     const at::Tensor&) override {
    return q.flatten(2);
  }
};

class OtherFactory : public DenseFactory {
 public:
  std::unique_ptr<AttentionCore> attention(Build, const AttentionSpec&) const override {
    return std::make_unique<OtherAttention>();
  }
};

TEST(Documents, AttentionThatCantKeepThemApartIsRefused) {
  const auto decoder = testing::make_decoder(testing::small_gpt2(), at::kDouble, OtherFactory());
  decoder->hidden({}, windows());
  decoder->isolate_documents(kBegin);
  const std::string error = testing::usage_error_of([&] { decoder->hidden({}, windows()); });
  EXPECT_NE(error.find("'model.layers.0.self_attn' is of a kind"), std::string::npos) << error;
}

}  // namespace documents_test
}  // namespace refract
