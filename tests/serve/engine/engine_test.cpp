// What the model's thread computes, for whom, and what it takes.
#include "serve/engine/engine.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "decode/generate.h"
#include "serve/engine/inbox.h"
#include "support/small_models.h"

namespace refract {
namespace engine_test {

using namespace std::chrono_literals;
using testing::every_setting;
using testing::make_decoder;

// Everything that came for one work.
struct Result {
  std::vector<TokenScore> prompt, made;
  std::optional<End> end;
  std::string message;
};

Work work(std::vector<TokenId> prompt, int64_t max_tokens, double temperature = 0) {
  Work work;
  work.prompt = std::move(prompt);
  work.sampling.max_tokens = max_tokens;
  work.sampling.temperature = temperature;
  work.logprobs = 2;
  return work;
}

Work scoring(std::vector<TokenId> prompt, int64_t max_tokens = 0) {
  Work scored = work(std::move(prompt), max_tokens);
  scored.scores_prompt = true;
  return scored;
}

std::vector<Work> addressed(std::vector<Work> works, const std::shared_ptr<Inbox>& inbox) {
  for (size_t i = 0; i < works.size(); ++i) {
    works[i].index = i;
    works[i].inbox = inbox;
  }
  return works;
}

std::vector<Result> gather(Inbox& inbox, size_t count) {
  std::vector<Result> results(count);
  for (size_t open = count; open > 0;) {
    const std::vector<News> all = inbox.wait(20s);
    if (all.empty()) break;
    for (const News& news : all) {
      Result& result = results[news.index];
      EXPECT_FALSE(result.end) << "news behind the end";
      for (const TokenScore& score : news.prompt_scores) result.prompt.push_back(score);
      if (news.token) result.made.push_back(*news.token);
      if (news.end) {
        result.end = news.end;
        result.message = news.message;
        --open;
      }
    }
  }
  return results;
}

EngineOptions options(const Decoder& model, int64_t slots, int64_t queue = 100) {
  return {slots, model.config().longest_cached(), queue};
}

// The results of works that are given in one request, in which `slots` may grow at a time.
std::vector<Result> computed(Decoder& model, std::vector<Work> works, int64_t slots) {
  Engine engine(model, options(model, slots));
  const auto inbox = std::make_shared<Inbox>(works.size());
  const size_t count = works.size();
  EXPECT_EQ(engine.submit(addressed(std::move(works), inbox)), Admission::kTaken);
  engine.stop(100s);
  engine.run();
  return gather(*inbox, count);
}

void expect_same(const std::vector<TokenScore>& a, const std::vector<TokenScore>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].token, b[i].token);
    EXPECT_EQ(a[i].logprob, b[i].logprob) << "not the same bits";
    EXPECT_EQ(a[i].top, b[i].top);
  }
}

std::vector<Work> many_works() {
  std::vector<Work> works = {
      work({1, 2, 3}, 8),       work({7}, 11, 1.5),
      scoring({4, 4, 9, 0, 2}), work({10, 12, 6, 1, 8}, 5, 0.7),
      scoring({3, 3}, 1),       work({5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5, 5}, 1),
      scoring({1, 2, 3}, 4),    work({1, 2, 3}, 8)};
  works[3].number = 2;
  return works;
}

// The same bits alone, and beside others in any number of slots.
TEST(Engine, AResultDependsOnItsRequestAlone) {
  for (const auto& [name, config] : every_setting()) {
    const auto model = make_decoder(config);
    std::vector<Result> alone;
    for (const Work& one : many_works()) alone.push_back(computed(*model, {one}, 1).front());
    for (const int64_t slots : {1, 3, 8}) {
      const std::vector<Result> together = computed(*model, many_works(), slots);
      for (size_t i = 0; i < together.size(); ++i) {
        SCOPED_TRACE(name + ", work " + std::to_string(i));
        EXPECT_EQ(together[i].end, alone[i].end);
        expect_same(together[i].prompt, alone[i].prompt);
        expect_same(together[i].made, alone[i].made);
      }
    }
  }
}

TEST(Engine, MakesTheTokensOfGenerate) {
  for (const auto& [name, config] : every_setting()) {
    const auto model = make_decoder(config);
    for (const double temperature : {0.0, 1.3}) {
      const Work asked = work({3, 1, 4}, 9, temperature);
      const Result result = computed(*model, {work({2}, 3), asked}, 2)[1];
      std::vector<TokenId> made;
      for (const TokenScore& score : result.made) made.push_back(score.token);
      EXPECT_EQ(made, generate(*model, asked.prompt, asked.sampling)) << name;
    }
  }
}

// In float64 the definition is exact enough to name a tolerance for the float log-probabilities:
// their own rounding, 1e-6 of a number of up to 20.
TEST(Engine, ScoresByTheDefinition) {
  for (const auto& [name, config] : every_setting()) {
    const auto model = make_decoder(config, at::kDouble);
    const std::vector<TokenId> prompt = {4, 4, 9, 0, 2, 11, 5};
    const Result result = computed(*model, {scoring(prompt, 1)}, 1).front();
    const at::NoGradGuard no_grad;
    const at::Tensor input = at::tensor(prompt, at::kInt).unsqueeze(0);
    const at::Tensor expected = at::log_softmax(model->logits(model->hidden({}, input)), -1)[0];
    ASSERT_EQ(result.prompt.size(), prompt.size()) << name;
    EXPECT_FALSE(result.prompt[0].logprob);
    for (size_t i = 1; i < prompt.size(); ++i) {
      const at::Tensor row = expected[static_cast<int64_t>(i) - 1];
      EXPECT_NEAR(*result.prompt[i].logprob, row[prompt[i]].item<double>(), 2e-5) << name;
      ASSERT_EQ(result.prompt[i].top.size(), 2U);
      EXPECT_EQ(result.prompt[i].top[0].first, row.argmax().item<int64_t>()) << name;
      EXPECT_NEAR(result.prompt[i].top[0].second, row.max().item<double>(), 2e-5) << name;
      EXPECT_GE(result.prompt[i].top[0].second, result.prompt[i].top[1].second);
    }
    ASSERT_EQ(result.made.size(), 1U);
    EXPECT_EQ(result.made[0].token, expected[6].argmax().item<int64_t>()) << name;
    EXPECT_EQ(result.end, End::kLength);
  }
}

TEST(Engine, AStopTokenEndsAText) {
  const auto model = make_decoder(testing::small_llama());
  Work asked = work({3, 1, 4}, 9);
  const Result whole = computed(*model, {asked}, 1).front();
  ASSERT_EQ(whole.made.size(), 9U);
  const TokenId stop = whole.made[4].token;
  size_t first = 0;
  while (whole.made[first].token != stop) ++first;
  asked.sampling.stop = {stop};
  const Result cut = computed(*model, {asked}, 1).front();
  EXPECT_EQ(cut.end, End::kStop);
  ASSERT_EQ(cut.made.size(), first + 1);
  EXPECT_EQ(cut.made.back().token, stop);
}

TEST(Engine, TakesAllOfARequestOrNothing) {
  const auto model = make_decoder(testing::small_gpt2());
  Engine engine(*model, options(*model, 1, /*queue=*/3));
  const auto inbox = std::make_shared<Inbox>(4);
  EXPECT_EQ(engine.submit(addressed({work({1}, 2), work({1}, 2)}, inbox)), Admission::kTaken);
  EXPECT_EQ(engine.submit(addressed({work({1}, 2), work({1}, 2)}, inbox)), Admission::kFull);
  EXPECT_EQ(engine.load().waiting, 2);
  inbox->cancel_all();  // what nobody wants holds no place
  const auto other = std::make_shared<Inbox>(2);
  EXPECT_EQ(engine.submit(addressed({work({1}, 2), work({1}, 2)}, other)), Admission::kTaken);
  engine.stop(100s);
  EXPECT_EQ(engine.submit(addressed({work({1}, 2)}, other)), Admission::kStopping);
  engine.run();
  const std::vector<Result> results = gather(*other, 2);
  EXPECT_EQ(results[1].made.size(), 2U);
  EXPECT_TRUE(inbox->wait(0ms).empty());
  EXPECT_EQ(engine.load().active, 0);
  EXPECT_EQ(engine.load().new_tokens, 4);
}

TEST(Engine, ACancelledSequenceFreesItsSlot) {
  const auto model = make_decoder(testing::small_gpt2());
  Engine engine(*model, {1, 12, 10});
  std::thread thread([&] { engine.run(); });
  const auto unwanted = std::make_shared<Inbox>(1), wanted = std::make_shared<Inbox>(1);
  engine.submit(addressed({work({1}, 12)}, unwanted));
  EXPECT_FALSE(unwanted->wait(20s).empty());
  unwanted->cancel(0);
  engine.submit(addressed({work({1}, 3)}, wanted));
  EXPECT_EQ(gather(*wanted, 1)[0].made.size(), 3U);
  engine.stop(100s);
  thread.join();
  EXPECT_EQ(engine.load().active, 0);
}

TEST(Engine, CutsOffWhatTakesTooLong) {
  const auto model = make_decoder(testing::small_gpt2());
  Engine engine(*model, options(*model, 1));
  const auto inbox = std::make_shared<Inbox>(3);
  engine.submit(addressed({work({1}, 3), work({1}, 3), scoring({1, 2})}, inbox));
  engine.stop(0ms);
  engine.run();
  for (const Result& result : gather(*inbox, 3)) EXPECT_EQ(result.end, End::kCutOff);
  EXPECT_EQ(engine.load().waiting, 0);
}

// Weights that are not numbers make no answer, and the next request gets its own.
TEST(Engine, LogitsThatAreNotFiniteFailTheRequestAlone) {
  const auto model = make_decoder(testing::small_gpt2());
  const at::Tensor weights = model->arena().master();
  const at::Tensor saved = weights.clone();
  weights.fill_(std::nan(""));
  model->arena().refresh_compute();
  for (const Work& asked :
       {work({1}, 3), work({1}, 3, 1), scoring({1, 2, 3}), scoring({1, 2}, 2)}) {
    const Result result = computed(*model, {asked}, 1).front();
    EXPECT_EQ(result.end, End::kFailed);
    EXPECT_NE(result.message.find("not finite"), std::string::npos) << result.message;
  }
  weights.copy_(saved);
  model->arena().refresh_compute();
  EXPECT_EQ(computed(*model, {work({1}, 3)}, 1).front().end, End::kLength);
}

}  // namespace engine_test
}  // namespace refract
