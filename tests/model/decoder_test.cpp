// What a decoder computes, told by other ways to compute the same.
#include "model/decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace decoder_test {

using testing::every_setting;
using testing::make_decoder;
using testing::tokens_for;

double distance(const at::Tensor& a, const at::Tensor& b) {
  return ((a.to(at::kDouble) - b.to(at::kDouble)).norm() / b.to(at::kDouble).norm()).item<double>();
}

// Every member as a layer of its own, by composition: the path that a transform's layers take.
class SeparateFactory : public DenseFactory {
 public:
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    std::vector<std::unique_ptr<LinearLayer>> layers;
    for (const LinearSpec& member : spec.members)
      layers.push_back(std::make_unique<DenseLinear>(build, member));
    return std::make_unique<ComposedProjections>(build, spec, std::move(layers));
  }
};

void copy_values(Decoder& from, Decoder& to) {
  for (const Parameter& p : from.arena().parameters()) {
    ASSERT_NE(to.arena().find(p.name), nullptr) << p.name;
    to.arena().value(to.arena().find(p.name)).copy_(from.arena().value(&p));
  }
  to.arena().refresh_compute();
}

TEST(DecoderTest, ComposedLayersEqualTheGroupsValuesAndGradients) {
  for (const auto& [name, config] : every_setting()) {
    auto dense = make_decoder(config, at::kDouble),
         composed = make_decoder(config, at::kDouble, SeparateFactory());
    ASSERT_EQ(dense->arena().count(), composed->arena().count()) << name;
    copy_values(*dense, *composed);
    const at::Tensor tokens = tokens_for(config, 2, 9),
                     targets = tokens_for(config, 2, 10).narrow(1, 1, 9).contiguous();
    const at::Tensor a = dense->loss({}, tokens, targets).sum,
                     b = composed->loss({}, tokens, targets).sum;
    EXPECT_NEAR(a.item<double>(), b.item<double>(), 1e-9) << name;
    a.backward();
    b.backward();
    for (const Parameter& p : dense->arena().parameters()) {
      const at::Tensor grad = composed->arena().gradient(composed->arena().find(p.name));
      EXPECT_TRUE(at::allclose(dense->arena().gradient(&p), grad, 1e-9, 1e-10))
          << name << ": " << p.name;
      // A bias of the keys moves all of a query\'s scores alike: its gradient is 0.
      if (p.name.ends_with("k_proj.bias")) continue;
      EXPECT_GT(grad.norm().item<double>(), 1e-6) << name << ": " << p.name;
    }
  }
}

TEST(DenseProjectionsTest, OneGemmEqualsSeparateLayers) {
  for (bool bias : {false, true}) {
    ParameterArena arena;
    BufferStore buffers;
    std::vector<TransformedLayer> transformed;
    DenseProjections group({arena, buffers, transformed},
                           {{{"q", 6, 8, bias, 1}, {"k", 6, 4, bias, 1}, {"v", 6, 4, bias, 1}}});
    arena.allocate(at::kCPU, at::kDouble, at::kDouble);
    arena.initialize(3);
    const at::Tensor x = arena.value(arena.find("q.weight")).narrow(0, 0, 5).clone();
    std::vector<at::Tensor> separate;
    for (const char* name : {"q", "k", "v"}) {
      at::Tensor y = at::linear(x, arena.value(arena.find(std::string(name) + ".weight")));
      if (bias) {
        at::Tensor b = arena.value(arena.find(std::string(name) + ".bias"));
        b.fill_(name[0]);
        y = y + b;
      }
      separate.push_back(y);
    }
    EXPECT_TRUE(at::allclose(group.forward({}, x), at::cat(separate, -1), 1e-12, 1e-12));
  }
}

TEST(DecoderTest, LossIsTheCrossEntropyOfTheLogits) {
  for (const auto& [name, config] : every_setting()) {
    auto decoder = make_decoder(config, at::kDouble);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = tokens_for(config, 2, 9);
    at::Tensor targets = tokens_for(config, 2, 10).narrow(1, 1, 9).contiguous();
    const at::Tensor logits = decoder->logits(decoder->hidden({}, tokens));
    EXPECT_EQ(logits.sizes(), (std::vector<int64_t>{2, 9, config.vocab_size}));
    const at::Tensor all =
        at::log_softmax(logits, -1).gather(2, targets.unsqueeze(2)).squeeze(2).neg();
    targets.narrow(1, 0, 2).fill_(-100);
    const Decoder::Loss loss = decoder->loss({}, tokens, targets);
    EXPECT_NEAR(loss.sum.item<double>(), all.narrow(1, 2, 7).sum().item<double>(), 1e-5) << name;
    EXPECT_EQ(loss.correct.item<int64_t>(), logits.argmax(-1).eq(targets).sum().item<int64_t>())
        << name;
  }
}

TEST(DecoderTest, DecodingWithACacheEqualsTheWholeForward) {
  for (const auto& [name, config] : every_setting()) {
    auto decoder = make_decoder(config, at::kDouble);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = tokens_for(config, 3, 10);
    const at::Tensor whole = decoder->logits(decoder->hidden({}, tokens));
    KvCache cache = decoder->make_cache(3, 10);
    ForwardContext context;
    context.cache = &cache;
    std::vector<at::Tensor> parts;
    int64_t begin = 0;
    for (int64_t count : {4, 1, 3, 1, 1}) {  // a prompt, single tokens, several behind others
      parts.push_back(
          decoder->logits(decoder->hidden(context, tokens.narrow(1, begin, count).contiguous())));
      begin += count;
      EXPECT_EQ(cache.length, begin);
    }
    EXPECT_LT(distance(at::cat(parts, 1), whole), 1e-10) << name;
  }
}

TEST(DecoderTest, AnOverfullCacheAndATooLongInputAreErrors) {
  const ModelConfig config = testing::small_gpt2();
  auto decoder = make_decoder(config);
  KvCache cache = decoder->make_cache(1, 4);
  ForwardContext context;
  context.cache = &cache;
  decoder->hidden(context, tokens_for(config, 1, 4));
  EXPECT_NE(testing::error_of([&] {
              decoder->hidden(context, tokens_for(config, 1, 1));
            }).find("4 tokens"),
            std::string::npos);
  EXPECT_NE(testing::error_of([&] {
              decoder->hidden({}, tokens_for(config, 1, 13));
            }).find("max_position_embeddings = 12"),
            std::string::npos);
}

TEST(DecoderTest, TheFutureIsNotSeen) {
  for (const auto& [name, config] : every_setting()) {
    auto decoder = make_decoder(config);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = tokens_for(config, 2, 8);
    at::Tensor changed = tokens.clone();
    changed.narrow(1, 5, 3).copy_((changed.narrow(1, 5, 3) + 1).remainder(config.vocab_size));
    const at::Tensor a = decoder->hidden({}, tokens), b = decoder->hidden({}, changed);
    EXPECT_TRUE(at::allclose(a.narrow(1, 0, 5), b.narrow(1, 0, 5), 1e-5, 1e-6)) << name;
    EXPECT_GT(distance(a.narrow(1, 5, 3), b.narrow(1, 5, 3)), 1e-2) << name;
  }
}

ForwardContext training(uint64_t seed, int64_t step) {
  ForwardContext context;
  context.training = true;
  context.seed = seed;
  context.clock = at::tensor({step, int64_t{0}}, at::kLong);
  return context;
}

TEST(DecoderTest, DropoutFollowsSeedAndClock) {
  ModelConfig config = testing::small_gpt2();
  config.dropout = config.attention_dropout = 0.4;
  auto decoder = make_decoder(config);
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = tokens_for(config, 2, 8);
  const at::Tensor first = decoder->hidden(training(1, 5), tokens);
  EXPECT_TRUE(at::equal(first, decoder->hidden(training(1, 5), tokens)));
  EXPECT_FALSE(at::equal(first, decoder->hidden(training(1, 6), tokens)));
  EXPECT_FALSE(at::equal(first, decoder->hidden(training(2, 5), tokens)));
  EXPECT_TRUE(at::equal(decoder->hidden({}, tokens), decoder->hidden({}, tokens)));
}

TEST(DecoderTest, AttentionWithDropoutThatDropsNothingIsAttention) {
  for (ModelConfig config : {testing::small_gpt2(), testing::small_llama()}) {
    config.attention_dropout = 1e-9;
    auto decoder = make_decoder(config, at::kDouble);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = tokens_for(config, 2, 8);
    EXPECT_LT(distance(decoder->hidden(training(1, 1), tokens), decoder->hidden({}, tokens)), 1e-7);
  }
}

TEST(DecoderTest, PaddedVocabularyRowsStayZeroAndOutOfTheLogits) {
  ModelConfig config = testing::small_gpt2();
  config.vocab_size = 1030;
  auto decoder = make_decoder(config);
  Parameter* table = decoder->arena().find("model.embed_tokens.weight");
  EXPECT_EQ(table->padded_rows, 1088);
  const at::Tensor tokens = tokens_for(config, 2, 8);
  decoder->loss({}, tokens, tokens).sum.backward();
  const at::Tensor leaf = decoder->arena().leaf(table);
  EXPECT_EQ(leaf.grad().narrow(0, 1030, 58).abs().max().item<float>(), 0);
  EXPECT_GT(leaf.grad().narrow(0, 1029, 1).abs().max().item<float>(),
            0);  // in the softmax's denominator
  const at::NoGradGuard no_grad;
  EXPECT_EQ(leaf.narrow(0, 1030, 58).abs().max().item<float>(), 0);
  EXPECT_EQ(decoder->logits(decoder->hidden({}, tokens)).size(2), 1030);
}

}  // namespace decoder_test
}  // namespace refract
