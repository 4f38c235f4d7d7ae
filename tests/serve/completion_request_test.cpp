#include "serve/completion_request.h"

#include <gtest/gtest.h>

#include <string>

#include "serve/api_error.h"
#include "support/errors.h"
#include "text/simple_tokenizers.h"

namespace refract {
namespace completion_request_test {

using testing::has;

RequestLimits limits() {
  RequestLimits limits;
  limits.context = 10;
  limits.vocabulary = 200;  // the tokenizer has 257
  limits.sequences = 6;
  limits.stops = 2;
  limits.stop_bytes = 5;
  limits.told = 1000;
  return limits;
}

CompletionRequest parsed(const std::string& body) {
  const auto tokenizer = make_byte_tokenizer();
  return parse_completion(body, *tokenizer, /*start=*/7, limits());
}

// The message of the refusal; its status must be 400.
std::string refusal(const std::string& body) {
  try {
    parsed(body);
  } catch (const ApiError& error) {
    EXPECT_EQ(error.status(), 400);
    return error.body();
  }
  return "";
}

TEST(CompletionRequest, AnAnswerHasABound) {
  const std::string prompt = R"({"prompt": "123456789", "max_tokens": 2, "n": 6, "logprobs": 20)";
  EXPECT_TRUE(has(refusal(prompt + R"(, "echo": true})"), "1386 log-probabilities"));
  EXPECT_EQ(refusal(prompt + "}"), "");
  EXPECT_EQ(refusal(R"({"prompt": "123456789", "max_tokens": 2, "n": 6, "echo": true})"), "");
}

TEST(CompletionRequest, HasTheProtocolsDefaults) {
  const CompletionRequest request =
      parsed(R"({"prompt": "ab", "max_tokens": null, "max_tokens": 3})");
  ASSERT_EQ(request.prompts.size(), 1U);
  EXPECT_EQ(request.prompts[0].text, "ab");
  EXPECT_EQ(request.prompts[0].tokens, (std::vector<TokenId>{'a', 'b'}));
  EXPECT_EQ(request.sampling.max_tokens, 3);
  EXPECT_EQ(request.sampling.temperature, 1);
  EXPECT_EQ(request.sampling.top_p, 1);
  EXPECT_EQ(request.n, 1);
  EXPECT_EQ(request.logprobs, -1);
  EXPECT_FALSE(request.echo || request.stream);
  EXPECT_TRUE(request.stop.empty());
}

TEST(CompletionRequest, TakesTheFourFormsOfAPrompt) {
  EXPECT_EQ(parsed(R"({"max_tokens": 1, "prompt": ["a", ""]})").prompts[1].tokens,
            (std::vector<TokenId>{7}));
  EXPECT_EQ(parsed(R"({"max_tokens": 1, "prompt": [97, 98]})").prompts[0].text, "ab");
  const CompletionRequest lists = parsed(R"({"max_tokens": 1, "prompt": [[97], [98, 99]]})");
  ASSERT_EQ(lists.prompts.size(), 2U);
  EXPECT_EQ(lists.prompts[1].tokens, (std::vector<TokenId>{98, 99}));
}

TEST(CompletionRequest, ReadsTheRest) {
  const CompletionRequest request = parsed(
      R"({"model": "m", "prompt": "a", "max_tokens": 0, "temperature": 0, "top_p": 0.5, "top_k": -1,
          "n": 2, "stop": "x", "seed": -3, "echo": true, "logprobs": 5, "stream": true,
          "stream_options": {"include_usage": true}, "user": "u", "best_of": 2,
          "frequency_penalty": 0, "logit_bias": {}, "suffix": null})");
  EXPECT_EQ(request.model, "m");
  EXPECT_EQ(request.sampling.max_tokens, 0);
  EXPECT_EQ(request.sampling.temperature, 0);
  EXPECT_EQ(request.sampling.top_p, 0.5);
  EXPECT_EQ(request.sampling.top_k, 0);
  EXPECT_EQ(request.sampling.seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"x"}));
  EXPECT_EQ(request.logprobs, 5);
  EXPECT_TRUE(request.echo && request.stream && request.stream_usage);
}

TEST(CompletionRequest, DrawsASeedWhereNoneIsGiven) {
  const std::string body = R"({"prompt": "a", "max_tokens": 1})";
  EXPECT_NE(parsed(body).sampling.seed, parsed(body).sampling.seed);
}

// A whole context leaves room for one token: its prediction is known.
TEST(CompletionRequest, BoundsPromptAndNewTokensTogether) {
  EXPECT_EQ(parsed(R"({"prompt": "0123456789", "max_tokens": 1})").prompts[0].tokens.size(), 10U);
  EXPECT_TRUE(has(refusal(R"({"prompt": "0123456789", "max_tokens": 2})"), "context of 10"));
  EXPECT_TRUE(has(refusal(R"({"prompt": "0123456789a", "max_tokens": 0})"), "11 tokens"));
  EXPECT_TRUE(has(refusal(R"({"prompt": [1,1,1,1,1,1,1,1,1,1,1], "max_tokens": 0})"), "11 tokens"));
}

TEST(CompletionRequest, RefusesWhatItCannotDo) {
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {R"(nothing)", "JSON"},
      {R"([])", "object"},
      {R"({})", "prompt is missing"},
      {R"({"prompt": null})", "prompt is missing"},
      {R"({"prompt": 3})", "prompt must be"},
      {R"({"prompt": []})", "not empty"},
      {R"({"prompt": [[]]})", "must not be empty"},
      {R"({"prompt": [[1], "a", 3]})", "array of token ids"},
      {R"({"prompt": [1, "a"]})", "no token id"},
      {R"({"prompt": [1, 200]})", "0 to 199"},
      {R"({"prompt": [1, -1]})", "no token id"},
      {R"({"prompt": [1.5]})", "no token id"},
      {R"({"prompt": [18446744073709551615]})", "no token id"},
      {R"({"prompt": "😀"})", "vocabulary has 200"},
      {R"({"prompt": ["a","a","a","a","a","a","a"]})", "the most are 6"},
      {R"({"prompt": ["a","a","a"], "n": 3, "max_tokens": 1})", "9 sequences"},
      {R"({"prompt": "a", "n": 0})", "from 1 to 6"},
      {R"({"prompt": "a", "n": 18446744073709551615})", "from 1 to 6"},
      {R"({"prompt": "a", "max_tokens": -1})", "from 0 to 10"},
      {R"({"prompt": "a", "max_tokens": 1.5})", "integer"},
      {R"({"prompt": "a", "max_tokens": "1"})", "integer"},
      {R"({"prompt": "a", "temperature": -1})", "temperature"},
      {R"({"prompt": "a", "temperature": 1e99})", "temperature"},
      {R"({"prompt": "a", "top_p": 0})", "top_p"},
      {R"({"prompt": "a", "logprobs": true})", "logprobs"},
      {R"({"prompt": "a", "logprobs": 21})", "from 0 to 20"},
      {R"({"prompt": "a", "stop": ""})", "empty"},
      {R"({"prompt": "a", "stop": ["a", "b", "c"]})", "the most are 2"},
      {R"({"prompt": "a", "stop": "abcdef"})", "6 bytes"},
      {R"({"prompt": "a", "stop": [3]})", "strings"},
      {R"({"prompt": "a", "seed": "x"})", "seed"},
      {R"({"prompt": "a", "echo": 1})", "true or false"},
      {R"({"prompt": "a", "stream_options": {"x": true}})", "include_usage"},
      {R"({"prompt": "a", "best_of": 2})", "best_of"},
      {R"({"prompt": "a", "suffix": "b"})", "suffix"},
      {R"({"prompt": "a", "presence_penalty": 0.5})", "not supported"},
      {R"({"prompt": "a", "logit_bias": {"5": 1}})", "not supported"},
      {R"({"prompt": "a", "max_token": 3})", "did you mean 'max_tokens'"}};
  for (const auto& [body, words] : wrong) EXPECT_TRUE(has(refusal(body), words)) << body;
}

TEST(CompletionRequest, BoundsTheNesting) {
  const std::string deep = R"({"prompt": )" + std::string(5000, '[') + std::string(5000, ']') + "}";
  EXPECT_TRUE(has(refusal(deep), "deep"));
}

}  // namespace completion_request_test
}  // namespace refract
