#include "analysis/path.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model/batched_decoder.h"
#include "support/cuda_guard.h"
#include "support/random_tokens.h"
#include "support/small_models.h"
#include "support/tolerances.h"

namespace refract {
namespace path_test {

using testing::make_decoder;
using testing::random_tokens;

// The settings whose points can be evaluated together.
std::vector<std::pair<std::string, ModelConfig>> batched_settings() {
  auto all = testing::every_setting();
  std::erase_if(all, [](const auto& setting) {
    Decoder model(setting.second, DenseFactory());
    return !why_not_batched(model).empty();
  });
  return all;
}

std::shared_ptr<TokenStream> stream_for(const ModelConfig& config, int64_t size) {
  return make_token_stream(random_tokens(config, size));
}

std::vector<Weights> two_models(const ModelConfig& config) {
  return {weights_of(*make_decoder(config, at::kFloat, DenseFactory(), 1)),
          weights_of(*make_decoder(config, at::kFloat, DenseFactory(), 2))};
}

PointOptions options_for(const std::string& engine) {
  PointOptions options;
  options.context = 6;
  options.engine = engine;
  return options;
}

std::vector<Evaluation> path(const ModelConfig& config, const std::string& engine, int64_t alphas) {
  auto model = make_decoder(config);
  PointEvaluator evaluator(*model, two_models(config), options_for(engine));
  auto points = evaluator.evaluate(*stream_for(config, 200), path_points(equally_spaced(alphas)));
  EXPECT_EQ(evaluator.engine(), engine);
  return points;
}

TEST(Combination, IsBitwiseTheCornerAtItsEnd) {
  const std::vector<Weights> corners = two_models(testing::small_llama());
  for (size_t i = 0; i < 2; ++i) {
    const std::vector<double> at_end = {i == 0 ? 1.0 : 0.0, i == 0 ? 0.0 : 1.0};
    EXPECT_TRUE(at::equal(combine(corners, at_end).parameters, corners[i].parameters));
  }
  const at::Tensor middle = combine(corners, std::vector<double>{0.25, 0.75}).parameters;
  testing::expect_close(middle,
                        corners[0].parameters.mul(0.25).add(corners[1].parameters.mul(0.75)),
                        "a quarter of A");
}

TEST(Combination, ACornerSurvivesAnEndThatIsNotFinite) {
  std::vector<Weights> corners = two_models(testing::small_gpt2());
  corners[1].parameters[3] = std::numeric_limits<float>::infinity();
  EXPECT_TRUE(
      at::equal(combine(corners, std::vector<double>{1.0, 0.0}).parameters, corners[0].parameters));
}

TEST(Geometry, OfPointsOnTheAxes) {
  Weights a{at::zeros({5}), {}}, b{at::zeros({5}), {}};
  a.parameters[0] = 3;
  b.parameters[1] = 4;
  const Geometry geometry = geometry_of(a, b);
  EXPECT_DOUBLE_EQ(geometry.distance, 5);
  EXPECT_DOUBLE_EQ(geometry.norm_a, 3);
  EXPECT_DOUBLE_EQ(geometry.norm_b, 4);
  EXPECT_DOUBLE_EQ(geometry.cosine(), 0);
}

TEST(Path, EndPointsAreTheirOwnEvaluation) {
  const ModelConfig config = testing::small_gpt2();
  const auto stream = stream_for(config, 200);
  for (const char* engine : {"single", "batched", "prefixes"}) {
    const std::vector<Evaluation> points = path(config, engine, 4);
    auto a = make_decoder(config, at::kFloat, DenseFactory(), 1);
    auto b = make_decoder(config, at::kFloat, DenseFactory(), 2);
    const Evaluation at_a = evaluate(*a, *stream, 6), at_b = evaluate(*b, *stream, 6);
    EXPECT_EQ(points.front().loss, at_b.loss) << engine;
    EXPECT_EQ(points.back().loss, at_a.loss) << engine;
    EXPECT_EQ(points.back().accuracy, at_a.accuracy) << engine;
    EXPECT_EQ(points[1].tokens, 199) << engine;
  }
}

// The mean loss of either engine is within the table's tolerance for fp32; the arg max of random
// models has no ties.
void expect_same(const std::vector<Evaluation>& many, const std::vector<Evaluation>& single,
                 const std::string& what) {
  ASSERT_EQ(many.size(), single.size());
  for (size_t i = 0; i < single.size(); ++i) {
    const testing::Tolerance allowed = testing::tolerance(at::kCPU, at::kFloat);
    EXPECT_NEAR(many[i].loss, single[i].loss, allowed.relative * single[i].loss + allowed.absolute)
        << what << " point " << i;
    EXPECT_EQ(many[i].accuracy, single[i].accuracy) << what << " point " << i;
    EXPECT_EQ(many[i].tokens, single[i].tokens) << what;
  }
}

TEST(Path, OtherEnginesEqualOneByOneForEverySetting) {
  ASSERT_GE(batched_settings().size(), 13U);
  for (const auto& [name, config] : batched_settings()) {
    const std::vector<Evaluation> single = path(config, "single", 5);
    for (const char* engine : {"batched", "prefixes"})
      expect_same(path(config, engine, 5), single, name + " " + engine);
    EXPECT_GT(std::abs(single[2].loss - single[0].loss), 1e-3) << name << ": the points differ";
  }
}

std::vector<Evaluation> path_over(const ModelConfig& config, const std::vector<int32_t>& tokens,
                                  const std::string& engine, std::string* used = nullptr) {
  auto model = make_decoder(config);
  PointEvaluator evaluator(*model, two_models(config), options_for(engine));
  auto points = evaluator.evaluate(*make_token_stream(tokens), path_points({0.2, 0.5, 0.9}));
  if (used != nullptr) *used = evaluator.engine();
  return points;
}

// `size` tokens, of which the window of six repeats `period` of them over and over.
std::vector<int32_t> repeating(int64_t size, int64_t period) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < size; ++i) tokens.push_back(static_cast<int32_t>(i % period));
  return tokens;
}

TEST(Path, PrefixesOfFewOrEqualWindows) {
  const ModelConfig config = testing::small_gpt2();
  // One window, whole and short; all windows equal, with and without a shorter one that is a prefix
  // of them; a shorter one that is none; random tokens, enough of them for several trees.
  std::vector<std::vector<int32_t>> streams = {
      repeating(7, 9),  repeating(2, 9),  repeating(4, 9),    repeating(61, 6),
      repeating(64, 6), repeating(65, 7), repeating(9000, 11)};
  streams.push_back(streams[4]);
  streams.back().back() = 8;
  streams.push_back(random_tokens(config, 9000));
  for (size_t i = 0; i < streams.size(); ++i) {
    expect_same(path_over(config, streams[i], "prefixes"), path_over(config, streams[i], "single"),
                "stream " + std::to_string(i));
  }
}

TEST(Path, PrefixesAreTheSameTwice) {
  const ModelConfig config = testing::small_llama();
  for (const auto& tokens : {repeating(3000, 13), random_tokens(config, 9000)}) {
    const auto first = path_over(config, tokens, "prefixes"),
               second = path_over(config, tokens, "prefixes");
    for (size_t i = 0; i < first.size(); ++i) EXPECT_EQ(first[i].loss, second[i].loss);
  }
}

// Windows of six that all begin differently.
std::vector<int32_t> beginning_differently() {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < 60; ++i) tokens.push_back(i % 6 == 0 ? i / 6 : 1);
  return tokens;
}

TEST(Path, AutoTakesPrefixesWhereTheyRepeat) {
  const ModelConfig config = testing::small_gpt2();
  const std::vector<int32_t> distinct = beginning_differently(), tokens = repeating(600, 11);
  std::string used;
  expect_same(path_over(config, tokens, "auto", &used), path_over(config, tokens, "single"),
              "auto");
  EXPECT_EQ(used, "prefixes");
  path_over(config, distinct, "auto", &used);
  EXPECT_EQ(used, "single");
}

TEST(Path, TheEngineIsThatOfAnyStreamsPointsBetween) {
  const ModelConfig config = testing::small_gpt2();
  const auto repeats = make_token_stream(repeating(600, 11)),
             distinct = make_token_stream(beginning_differently());
  for (const std::string engine : {"auto", "prefixes", "batched"}) {
    auto model = make_decoder(config);
    PointEvaluator evaluator(*model, two_models(config), options_for(engine));
    EXPECT_EQ(evaluator.engine(), "single") << engine << ", nothing yet";
    evaluator.evaluate(*repeats, path_points({0, 1}));
    EXPECT_EQ(evaluator.engine(), "single") << engine << ", ends alone";
    evaluator.evaluate(*repeats, path_points({0, 0.5, 1}));
    const std::string used = engine == "auto" ? "prefixes" : engine;
    EXPECT_EQ(evaluator.engine(), used);
    evaluator.evaluate(*distinct, path_points({0, 0.5, 1}));
    EXPECT_EQ(evaluator.engine(), used) << engine << ", one by one after that";
  }
}

// As a memory-mapped corpus beyond the limit of what is sorted; only windows of it are to be read.
class LongStream : public TokenStream {
 public:
  int64_t size() const override { return (int64_t{1} << 24) + 1; }
  int32_t max_token() const override { return 0; }
  void read(int64_t, std::span<int32_t> out) const override {
    fail("{} tokens were asked for", out.size());
  }
};

TEST(Path, AutoReadsNoStreamAsAWholeThatItDoesNotSort) {
  const ModelConfig config = testing::small_gpt2();
  auto model = make_decoder(config);
  PointEvaluator evaluator(*model, two_models(config), options_for("auto"));
  try {
    evaluator.evaluate(LongStream(), path_points({0.5}));
    FAIL() << "nothing was read";
  } catch (const Error& error) {
    EXPECT_STREQ(error.what(), "7 tokens were asked for");  // a window
  }
}

TEST(Path, PrefixesRefuseOtherProducts) {
  PointOptions options = options_for("prefixes");
  options.products = "split";
  auto model = make_decoder(testing::small_gpt2());
  EXPECT_THROW(PointEvaluator(*model, two_models(testing::small_gpt2()), options), Error);
}

// Split products show in wide layers only, half precision in any; tests/model holds both to a
// tolerance for every setting.
TEST(Path, ProductsAreTheOnesAskedFor) {
  const ModelConfig config = testing::small_gpt2();
  const auto run = [&](const std::string& products) {
    auto model = make_decoder(config);
    PointOptions options = options_for("batched");
    options.products = products;
    PointEvaluator evaluator(*model, two_models(config), options);
    return evaluator.evaluate(*stream_for(config, 200), path_points({0.2, 0.5, 0.7}));
  };
  const auto plain = run("fp32"), half = run("half");
  for (size_t i = 0; i < plain.size(); ++i) {
    EXPECT_NEAR(half[i].loss, plain[i].loss, 1e-3 * plain[i].loss);
    EXPECT_NE(half[i].loss, plain[i].loss);
  }
}

TEST(Path, AWindowLimitIsThatOfEvaluate) {
  const ModelConfig config = testing::small_gpt2();
  const auto stream = stream_for(config, 200);
  for (const char* engine : {"single", "batched", "prefixes"}) {
    auto model = make_decoder(config);
    PointOptions options = options_for(engine);
    options.max_windows = 7;
    PointEvaluator evaluator(*model, two_models(config), options);
    const auto points = evaluator.evaluate(*stream, path_points({0, 0.5, 1}));
    for (const Evaluation& point : points) EXPECT_EQ(point.tokens, 42) << engine;
  }
}

// A decoder with a buffer that its loss does not read.
struct WithBuffer {
  std::unique_ptr<Decoder> model = make_decoder(testing::small_gpt2());
  WithBuffer() { model->buffers().declare("range", at::zeros({2})); }
};

TEST(Path, BuffersAreInterpolatedOrStartAfresh) {
  WithBuffer with;
  std::vector<Weights> corners = two_models(testing::small_gpt2());
  corners[0].buffers = {at::zeros({2}).add(1)};
  corners[1].buffers = {at::zeros({2}).add(3)};
  const auto stream = stream_for(testing::small_gpt2(), 100);
  const auto buffer_after = [&](const std::string& rule) {
    PointOptions options = options_for("auto");
    options.buffers = rule;
    options.fresh_buffers = {at::zeros({2}).add(9)};
    options.calibration = stream;
    PointEvaluator evaluator(*with.model, corners, options);
    evaluator.evaluate(*stream, {{0.25, 0.75}});
    EXPECT_EQ(evaluator.engine(), "single");
    return with.model->buffers().find("range")->tensor[0].item<float>();
  };
  EXPECT_EQ(buffer_after("interpolate"), 2.5F);
  EXPECT_EQ(buffer_after("re-estimate"), 9.0F);  // no layer moves this one
  EXPECT_THROW(PointEvaluator(*with.model, corners, options_for("batched")), Error);
}

TEST(Path, BatchedEqualsOneByOneOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  for (const auto& [name, config] : batched_settings()) {
    std::vector<Weights> corners = two_models(config);
    for (Weights& corner : corners) corner.parameters = corner.parameters.cuda();
    const auto run = [&, config = config](const std::string& engine) {
      Decoder model(config, DenseFactory());
      model.allocate(at::Device(at::kCUDA, 0), at::kFloat);
      PointEvaluator evaluator(model, corners, options_for(engine));
      return evaluator.evaluate(*stream_for(config, 3000), path_points(equally_spaced(9)));
    };
    const std::vector<Evaluation> single = run("single"), many = run("batched");
    const testing::Tolerance allowed = testing::tolerance(at::kCUDA, at::kFloat);
    for (size_t i = 0; i < single.size(); ++i) {
      EXPECT_NEAR(many[i].loss, single[i].loss,
                  allowed.relative * single[i].loss + allowed.absolute)
          << name << " point " << i;
      EXPECT_NEAR(many[i].accuracy, single[i].accuracy, 1.5 / 2999) << name << " point " << i;
    }
  }
}

// A vocabulary for which the head's logits never lie in memory where the device allows.
TEST(Path, LargeVocabulariesAgreeOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  ModelConfig config = testing::small_gpt2();
  config.vocab_size = 9001;
  std::vector<Weights> corners = two_models(config);
  for (Weights& corner : corners) corner.parameters = corner.parameters.cuda();
  for (const auto precision : {at::kFloat, at::kBFloat16}) {
    const auto run = [&](const std::string& engine, const std::string& products) {
      Decoder model(config, DenseFactory());
      model.allocate(at::Device(at::kCUDA, 0), precision);
      PointOptions options = options_for(engine);
      options.products = products;
      PointEvaluator evaluator(model, corners, options);
      auto points = evaluator.evaluate(*stream_for(config, 3000), path_points({0.2, 0.5, 0.6}));
      EXPECT_EQ(evaluator.engine(), engine == "single" ? "single" : "batched") << products;
      return points;
    };
    const auto single = run("single", "auto");
    for (const char* products : {"split", "half"}) {
      const auto many = run("auto", products);
      for (size_t i = 0; i < single.size(); ++i)
        EXPECT_NEAR(many[i].loss, single[i].loss, 1e-4 * single[i].loss) << products;
    }
  }
}

}  // namespace path_test
}  // namespace refract
