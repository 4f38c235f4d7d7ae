// The merged matrix beside the factors: chosen by the number of tokens, equal on either side.
#include "transforms/premerge.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <fstream>

#include "core/error.h"
#include "model/decoder.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"
#include "support/tolerances.h"
#include "transforms/kind.h"
#include "transforms/rules.h"
#include "transforms/transform_factory.h"

namespace refract {
namespace premerge_test {

namespace fs = std::filesystem;
using testing::expect_close;

constexpr const char* kLora = R"([{"match": ".*mlp.*", "kind": "lora", "r": 2},
                                  {"match": ".*q_proj", "kind": "lora", "r": 3}])";

struct Models {
  Models(const std::string& rules, PremergeSettings settings,
         const ModelConfig& config = testing::small_gpt2(), at::ScalarType dtype = at::kFloat)
      : inner(Rules::parse(rules, "the test")),
        plain_inner(Rules::parse(rules, "the test")),
        factory(inner, std::move(settings)),
        premerged(testing::make_decoder(config, dtype, factory)),
        plain(testing::make_decoder(config, dtype, plain_inner)) {
    const at::NoGradGuard no_grad;  // adapters that do something, the same in both
    for (const Parameter& p : premerged->arena().parameters()) {
      if (p.name.ends_with("lora_B.weight")) premerged->arena().value(&p).normal_(0, 0.3);
    }
    plain->arena().master().copy_(premerged->arena().master());
    for (Decoder* decoder : {premerged.get(), plain.get()}) decoder->arena().refresh_compute();
  }
  at::Tensor difference_of_calls(int64_t tokens) {
    const at::NoGradGuard no_grad;
    const at::Tensor input = testing::tokens_for(premerged->config(), 1, tokens);
    return premerged->hidden({}, input).sub(plain->hidden({}, input)).abs().max();
  }
  TransformFactory inner, plain_inner;
  PremergeFactory factory;
  std::unique_ptr<Decoder> premerged, plain;
};

PremergeSettings with_default(int64_t tokens, const std::string& mode = "auto") {
  PremergeSettings settings;
  settings.mode = mode;
  settings.default_tokens = tokens;
  settings.device = "here";
  settings.precision = "fp32";
  return settings;
}

TEST(Premerge, AgreesOnEitherSideOfTheThreshold) {
  const at::NoGradGuard no_grad;
  for (const auto& config : {testing::small_gpt2(), testing::small_llama()}) {
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      Models models(kLora, with_default(4), config, dtype);
      for (int64_t tokens : {1, 3, 4, 5, 12}) {
        const at::Tensor input = testing::tokens_for(config, 1, tokens);
        // Sums in another order, two layers deep.
        expect_close(models.premerged->hidden({}, input), models.plain->hidden({}, input),
                     fmt::format("{} tokens", tokens), 20);
      }
    }
  }
}

TEST(Premerge, TheNumberOfTokensChooses) {
  Models models(kLora, with_default(4));
  const at::NoGradGuard no_grad;
  const auto& group = models.factory.groups().front();
  EXPECT_EQ(group.spec.members.size(), 3u);
  EXPECT_EQ(group.shape.kinds, "lora+dense+dense");
  EXPECT_EQ(group.shape.in_features, 8);
  EXPECT_EQ(group.shape.out_features, 24);
  EXPECT_EQ(group.shape.parameters, 3 * 64 + 3 * 16);
  const at::Tensor few = at::randn({4, 8}), many = at::randn({5, 8});
  EXPECT_TRUE(group.layer->forward({}, few).equal(group.layer->forward_merged(few)));
  EXPECT_TRUE(group.layer->forward({}, many).equal(group.layer->structured().forward({}, many)));
  ForwardContext training;
  training.training = true;
  EXPECT_TRUE(
      group.layer->forward(training, few).equal(group.layer->structured().forward(training, few)));
  EXPECT_FALSE(group.layer->forward_merged(few).equal(group.layer->structured().forward({}, few)))
      << "the two forms round alike here, so this test shows nothing";
}

// A quantized layer has a dense weight to export, but does not multiply by it; so has an adapter or
// a factor above one.
TEST(Premerge, LeavesLayersAloneThatDoNotMultiplyByTheirMergedWeight) {
  for (const char* kind : {R"("optical")", R"("lora", "over": "optical")",
                           R"("low_rank", "rank": 4, "over": "optical")"}) {
    const std::string rules = fmt::format(R"([{{"match": ".*up_proj", "kind": {}}}])", kind);
    Models models(rules, with_default(100));
    const auto& group = models.factory.groups().front();
    EXPECT_FALSE(group.layer->mergeable()) << kind;
    EXPECT_EQ(group.layer->bytes(), 0) << kind;
    const at::NoGradGuard no_grad;
    const at::Tensor x = at::randn({3, 8});
    EXPECT_TRUE(group.layer->forward({}, x).equal(group.layer->structured().forward({}, x)))
        << kind;
    EXPECT_THROW(group.layer->forward_merged(x), Error);
  }
}

// Every kind whose layers multiply by their merged weight, among them all that take a guide.
TEST(Premerge, EveryKindWithAMergedFormAgreesOnEitherSide) {
  const at::NoGradGuard no_grad;
  for (const KindEntry& entry : registered_kinds()) {
    if (!entry.make()->transforms_linear()) continue;
    const std::string rules = fmt::format(R"([{{"match": ".*mlp.*", "kind": "{}"}}])", entry.name);
    for (const at::ScalarType dtype : {at::kFloat, at::kDouble}) {
      Models models(rules, with_default(4), testing::small_llama(), dtype);
      const bool mergeable = models.factory.groups().front().layer->mergeable();
      EXPECT_TRUE(mergeable || !entry.make()->takes_guide()) << entry.name;
      if (!mergeable) continue;
      for (int64_t tokens : {1, 4, 5, 12}) {
        const at::Tensor input = testing::tokens_for(models.plain->config(), 1, tokens);
        expect_close(models.premerged->hidden({}, input), models.plain->hidden({}, input),
                     entry.name, 20);
      }
    }
  }
}

TEST(Premerge, FollowsWeightsThatAreWritten) {
  Models models(kLora, with_default(100));
  models.difference_of_calls(3);
  const at::NoGradGuard no_grad;
  for (Decoder* decoder : {models.premerged.get(), models.plain.get()}) {
    decoder->arena().master().mul_(1.5);
    decoder->arena().refresh_compute();
  }
  EXPECT_LT(models.difference_of_calls(3).item<float>(), 1e-4);
}

TEST(Premerge, ModesAndTheMeasuredTable) {
  Models measured(kLora, with_default(7));
  PremergeSettings settings = with_default(7);
  settings.table.set({measured.factory.groups().front().shape, "here", "fp32", 3});
  settings.table.set({measured.factory.groups().back().shape, "elsewhere", "fp32", 2});
  Models models(kLora, settings);
  EXPECT_EQ(models.factory.groups().front().layer->tokens(), 3);
  EXPECT_EQ(models.factory.groups().back().layer->tokens(), 7);  // another machine's is not ours
  EXPECT_TRUE(Models(kLora, with_default(7, "off")).factory.groups().empty());
  Models on(kLora, with_default(0, "on"));
  EXPECT_GT(on.factory.groups().front().layer->tokens(), 1'000'000);
  EXPECT_EQ(on.factory.groups().front().layer->bytes(), 3 * 64 * 4);
  Models none(kLora, with_default(0));
  EXPECT_EQ(none.factory.groups().front().layer->bytes(), 0);
}

TEST(Premerge, TheTableReadsBackAndReplaces) {
  const testing::TemporaryFolder folder;
  const fs::path path = folder / "premerge.toml";
  PremergeTable table;
  table.set({{"low_rank", 8, 32, 80}, "a \"device\"", "bf16", 128});
  table.set({{"low_rank", 8, 32, 80}, "a \"device\"", "fp32", 16});
  table.set({{"low_rank", 8, 32, 80}, "a \"device\"", "bf16", 64});
  std::ofstream(path) << table.to_toml();
  const PremergeTable read = PremergeTable::read(path);
  EXPECT_EQ(read.all().size(), 2u);
  EXPECT_EQ(read.find({"low_rank", 8, 32, 80}, "a \"device\"", "bf16"), 64);
  EXPECT_EQ(read.find({"low_rank", 8, 32, 81}, "a \"device\"", "bf16"), std::nullopt);
  EXPECT_TRUE(PremergeTable::read(folder / "none").all().empty());
  std::ofstream(path) << "[[threshold]]\ntokens = 3\n";
  EXPECT_THROW(PremergeTable::read(path), Error);
}

}  // namespace premerge_test
}  // namespace refract
