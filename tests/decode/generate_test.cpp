// Decoding: with a cache, in batches of unequal prompts, past the longest sequence, captured.
#include "decode/generate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "core/error.h"
#include "decode/generation.h"
#include "support/cuda_guard.h"
#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace generate_test {

using testing::every_setting;
using testing::make_decoder;
using Prompts = std::vector<std::vector<TokenId>>;

SamplingOptions greedy(int64_t tokens) {
  SamplingOptions options;
  options.temperature = 0;
  options.max_tokens = tokens;
  return options;
}

// What generation means, without cache or batch: the model sees the whole sequence each time, and
// past its longest the second half of it.
std::vector<TokenId> by_definition(Decoder& model, std::vector<TokenId> seen, int64_t count) {
  const at::NoGradGuard no_grad;
  const auto longest = static_cast<size_t>(model.config().max_position_embeddings);
  if (seen.size() > longest) seen.erase(seen.begin(), seen.end() - longest);
  std::vector<TokenId> made;
  for (int64_t i = 0; i < count; ++i) {
    if (seen.size() > longest) seen.erase(seen.begin(), seen.end() - longest / 2);
    const at::Tensor input = at::tensor(seen, at::kInt).unsqueeze(0);
    const at::Tensor logits = model.logits(model.hidden({}, input).select(1, input.size(1) - 1));
    made.push_back(static_cast<TokenId>(logits.argmax().item<int64_t>()));
    seen.push_back(made.back());
  }
  return made;
}

Prompts unequal_prompts() {
  return {{1, 2, 3}, {7}, {4, 4, 9, 0, 2, 11, 5, 8, 1, 3, 12, 6}, {10, 12, 6, 1, 8}, {3, 3}};
}

// Prompts of 1 to 12 tokens with a longest sequence of 12: every row restarts at a time of its own.
TEST(Generate, ABatchOfUnequalPromptsEqualsEachByItsDefinition) {
  for (const auto& [name, config] : every_setting()) {
    auto decoder = make_decoder(config, at::kDouble);
    const Prompts made = generate_batch(*decoder, unequal_prompts(), greedy(20));
    for (size_t i = 0; i < made.size(); ++i) {
      EXPECT_EQ(made[i], by_definition(*decoder, unequal_prompts()[i], 20)) << name << ", " << i;
      EXPECT_EQ(made[i], generate(*decoder, unequal_prompts()[i], greedy(20))) << name << ", " << i;
    }
  }
}

TEST(Generate, ASampleDependsOnItsNumberAndTheSeedAlone) {
  auto decoder = make_decoder(testing::small_llama(), at::kDouble);
  SamplingOptions options;
  options.max_tokens = 30;
  options.temperature = 2;
  const Prompts prompts = {{1}, {5, 6}, {1}};
  const Prompts made = generate_batch(*decoder, prompts, options);
  EXPECT_EQ(made[0], generate(*decoder, prompts[0], options));
  EXPECT_EQ(made[1], generate_batch(*decoder, {{2, 2, 2, 2}, {5, 6}}, options)[1]);
  EXPECT_NE(made[0], made[2]);
  options.seed = 2;
  EXPECT_NE(made[0], generate(*decoder, prompts[0], options));
}

TEST(Generate, AStopTokenEndsItsSampleOnly) {
  auto decoder = make_decoder(testing::small_gpt2(), at::kDouble);
  const Prompts whole = generate_batch(*decoder, unequal_prompts(), greedy(40));
  SamplingOptions options = greedy(40);
  options.stop = {whole[0][5]};
  std::vector<int64_t> called(whole.size(), 0);
  DecodeOptions decode;
  decode.on_token = [&](int64_t prompt, TokenId) { ++called[prompt]; };
  const Prompts made = generate_batch(*decoder, unequal_prompts(), options, decode);
  EXPECT_EQ(made, generate_batch(*decoder, unequal_prompts(), options));  // the host reads seldom
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto end = std::find(whole[i].begin(), whole[i].end(), options.stop[0]);
    EXPECT_EQ(made[i], std::vector<TokenId>(whole[i].begin(), end));
    EXPECT_EQ(called[i], static_cast<int64_t>(made[i].size()));
  }
}

TEST(Generate, AnyOfSeveralStopTokensEndsASample) {
  auto decoder = make_decoder(testing::small_gpt2(), at::kDouble);
  const Prompts whole = generate_batch(*decoder, unequal_prompts(), greedy(40));
  SamplingOptions options = greedy(40);
  options.stop = {whole[0][5], whole[1][3], 1000};
  const Prompts made = generate_batch(*decoder, unequal_prompts(), options);
  for (size_t i = 0; i < whole.size(); ++i) {
    const auto end = std::find_first_of(whole[i].begin(), whole[i].end(), options.stop.begin(),
                                        options.stop.end());
    EXPECT_EQ(made[i], std::vector<TokenId>(whole[i].begin(), end));
  }
  EXPECT_LE(made[0].size(), 5u);
  EXPECT_LE(made[1].size(), 3u);
}

TEST(Generate, APromptBeyondTheEmbeddingsIsRefused) {
  auto decoder = make_decoder(testing::small_gpt2());
  const auto size = static_cast<TokenId>(decoder->config().vocab_size);
  for (const TokenId wrong : {size, -1}) {
    const std::string error = testing::error_of([&] {
      generate_batch(*decoder, {{1, wrong}}, greedy(2));
    });
    EXPECT_NE(error.find(fmt::format("the token {}", wrong)), std::string::npos) << error;
  }
}

TEST(Generate, AnEmptyPromptIsAnError) {
  auto decoder = make_decoder(testing::small_gpt2());
  EXPECT_THROW(generate_batch(*decoder, {{1}, {}}, greedy(2)), Error);
}

// An attention that knows nothing of lengths, as a kind of someone else's may be.
class PlainAttention : public SdpaAttention {
 public:
  using SdpaAttention::SdpaAttention;
  bool follows_lengths() const override { return false; }
};

class PlainFactory : public DenseFactory {
 public:
  std::unique_ptr<AttentionCore> attention(Build, const AttentionSpec& spec) const override {
    return std::make_unique<PlainAttention>(spec);
  }
};

TEST(Generate, AttentionThatDoesNotFollowLengthsIsDecodedOneByOne) {
  auto decoder = make_decoder(testing::small_llama(), at::kDouble),
       plain = make_decoder(testing::small_llama(), at::kDouble, PlainFactory());
  EXPECT_FALSE(plain->follows_lengths());
  EXPECT_EQ(generate_batch(*plain, unequal_prompts(), greedy(20)),
            generate_batch(*decoder, unequal_prompts(), greedy(20)));
}

// A captured graph against steps without one and against the CPU, over several of the sizes that a
// graph is made for.
TEST(CudaGenerate, CapturedEqualsUncapturedAndTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  cuda_runtime()->use_side_stream();
  for (ModelConfig config : {testing::small_gpt2(), testing::small_llama()}) {
    config.max_position_embeddings = 300;
    auto on_cpu = make_decoder(config);
    Decoder on_gpu(config, DenseFactory());
    on_gpu.allocate(at::Device(at::kCUDA, 0), at::kFloat);
    on_gpu.arena().master().copy_(on_cpu->arena().master());
    on_gpu.arena().refresh_compute();
    const at::NoGradGuard no_grad;
    Generation captured(on_gpu, 5, 320, greedy(320), true);
    captured.start(unequal_prompts());
    captured.run({});
    EXPECT_TRUE(captured.captured());
    DecodeOptions eager;
    EXPECT_EQ(captured.made(), generate_batch(on_gpu, unequal_prompts(), greedy(320), eager));
    const Prompts first = captured.made();
    captured.start(unequal_prompts());  // the graphs serve again
    captured.run({});
    EXPECT_EQ(captured.made(), first);
    // One rounding decides a near tie and all that follows it, so only the beginnings are compared.
    const Prompts cpu = generate_batch(*on_cpu, unequal_prompts(), greedy(20));
    for (size_t i = 0; i < cpu.size(); ++i) {
      EXPECT_EQ(std::vector<TokenId>(first[i].begin(), first[i].begin() + 20), cpu[i]);
    }
  }
}

}  // namespace generate_test
}  // namespace refract
