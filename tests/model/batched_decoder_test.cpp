// BatchedDecoder against Decoder, which computes one model at a time.
#include "model/batched_decoder.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "support/cuda_guard.h"
#include "support/random_tokens.h"
#include "support/small_models.h"
#include "support/tolerances.h"

namespace refract {
namespace batched_decoder_test {

using testing::every_setting;
using testing::make_decoder;
using testing::random_tokens;

constexpr int64_t kContext = 6;

// Models between two, [alphas, parameters], all weights times `factor`.
at::Tensor models_between(const ModelConfig& config, const std::vector<double>& alphas,
                          double factor = 1) {
  const auto a = make_decoder(config, at::kFloat, DenseFactory(), 1),
             b = make_decoder(config, at::kFloat, DenseFactory(), 2);
  std::vector<at::Tensor> models;
  for (double alpha : alphas) {
    models.push_back(
        a->arena().master().mul(alpha * factor).add(b->arena().master(), (1 - alpha) * factor));
  }
  return at::stack(models);
}

// Of one model, over all predicted tokens of a stream.
struct Result {
  double loss = 0;  // mean
  int64_t correct = 0;
};

// Calls f(tokens, targets) for the whole windows of a stream together, then for its rest.
template <class F>
void for_windows(const std::vector<int32_t>& stream, at::Device device, F&& f) {
  const at::Tensor all = at::tensor(stream, at::kInt).to(device);
  const int64_t predicted = all.numel() - 1, whole = predicted / kContext,
                rest = predicted % kContext;
  const auto call = [&](int64_t begin, int64_t windows, int64_t length) {
    const int64_t count = windows * length;
    f(all.narrow(0, begin, count).view({windows, length}),
      all.narrow(0, begin + 1, count).view({windows, length}));
  };
  call(0, whole, kContext);
  if (rest > 0) call(whole * kContext, 1, rest);
}

void add(const BatchedDecoder::Loss& part, std::vector<Result>& results) {
  for (size_t i = 0; i < results.size(); ++i) {
    const auto index = static_cast<int64_t>(i);
    results[i].loss += part.sum[index].item<double>();
    results[i].correct += part.correct[index].item<int64_t>();
  }
}

std::vector<Result> mean_of(std::vector<Result> results, const std::vector<int32_t>& stream) {
  for (Result& result : results) result.loss /= static_cast<double>(stream.size() - 1);
  return results;
}

std::vector<Result> one_by_one(Decoder& model, const at::Tensor& models,
                               const std::vector<int32_t>& stream) {
  const at::NoGradGuard no_grad;
  std::vector<Result> results(static_cast<size_t>(models.size(0)));
  for (size_t i = 0; i < results.size(); ++i) {
    model.arena().master().copy_(models[static_cast<int64_t>(i)]);
    model.arena().refresh_compute();
    for_windows(stream, model.device(), [&](const at::Tensor& tokens, const at::Tensor& targets) {
      const Decoder::Loss part = model.loss({}, tokens, targets);
      results[i].loss += part.sum.item<double>();
      results[i].correct += part.correct.item<int64_t>();
    });
  }
  return mean_of(std::move(results), stream);
}

std::vector<Result> together(Decoder& model, const at::Tensor& models,
                             const std::vector<int32_t>& stream,
                             Products products = Products::kPlain) {
  const BatchedDecoder many(model, models, products);
  std::vector<Result> results(static_cast<size_t>(many.models()));
  for_windows(stream, model.device(), [&](const at::Tensor& tokens, const at::Tensor& targets) {
    add(many.loss(tokens, targets), results);
  });
  return mean_of(std::move(results), stream);
}

std::vector<Result> by_prefixes(Decoder& model, const at::Tensor& models,
                                const std::vector<int32_t>& stream) {
  const BatchedDecoder many(model, models);
  std::vector<Result> results(static_cast<size_t>(many.models()));
  for (const PrefixTree& tree : prefix_trees(stream, kContext, 64)) add(many.loss(tree), results);
  return mean_of(std::move(results), stream);
}

// The arg max of random models has no ties.
void expect_same(const std::vector<Result>& many, const std::vector<Result>& single,
                 const std::string& what) {
  ASSERT_EQ(many.size(), single.size()) << what;
  const testing::Tolerance allowed = testing::tolerance(at::kCPU, at::kFloat);
  for (size_t i = 0; i < single.size(); ++i) {
    EXPECT_NEAR(many[i].loss, single[i].loss, allowed.relative * single[i].loss + allowed.absolute)
        << what << " model " << i;
    EXPECT_EQ(many[i].correct, single[i].correct) << what << " model " << i;
  }
}

TEST(BatchedDecoderTest, EqualsOneByOneForEverySettingThatItTakes) {
  for (const auto& [name, config] : every_setting()) {
    auto model = make_decoder(config);
    if (!why_not_batched(*model).empty()) continue;
    const at::Tensor models = models_between(config, {0, 0.25, 0.5});
    const std::vector<int32_t> stream = random_tokens(config, 200);
    const std::vector<Result> single = one_by_one(*model, models, stream);
    expect_same(together(*model, models, stream), single, name + " windows");
    expect_same(by_prefixes(*model, models, stream), single, name + " prefixes");
    EXPECT_GT(std::abs(single[2].loss - single[0].loss), 1e-3) << name << ": the models differ";
  }
}

// Split products have 16 bits: the mean loss is right to 1e-4 where single products are not.
TEST(BatchedDecoderTest, SplitProductsGiveTheSameLoss) {
  ModelConfig config = testing::small_llama();
  config.hidden_size = 128;
  config.intermediate_size = 256;
  config.head_dim = 32;
  auto model = make_decoder(config);
  const at::Tensor models = models_between(config, {0.2, 0.3, 0.4, 0.6, 0.7, 0.8}, 0.2);
  const std::vector<int32_t> stream = random_tokens(config, 200);
  const auto plain = together(*model, models, stream),
             split = together(*model, models, stream, Products::kSplit);
  size_t changed = 0;  // a loss of 200 tokens, summed in fp32, may come out the same by chance
  for (size_t i = 0; i < plain.size(); ++i) {
    changed += split[i].loss != plain[i].loss;
    EXPECT_NEAR(split[i].loss, plain[i].loss, 1e-4 * plain[i].loss);
  }
  EXPECT_GT(changed, 0U) << "nothing was split";
}

// In fp16 throughout; single losses are off by 2^-10 of themselves, their mean by less.
void expect_half_is_near(at::Device device) {
  for (const auto& [name, config] : every_setting()) {
    Decoder model(config, DenseFactory());
    model.allocate(device, at::kFloat);
    if (!why_not_batched(model).empty()) continue;
    const at::Tensor models = models_between(config, {0.2, 0.5, 0.7}).to(device);
    const std::vector<int32_t> stream = random_tokens(config, 200);
    const auto plain = together(model, models, stream),
               half = together(model, models, stream, Products::kHalf);
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_NEAR(half[i].loss, plain[i].loss, 1e-3 * plain[i].loss) << name;
      EXPECT_NE(half[i].loss, plain[i].loss) << name;
    }
  }
}

TEST(BatchedDecoderTest, HalfPrecisionIsNear) { expect_half_is_near(at::kCPU); }

TEST(BatchedDecoderTest, HalfPrecisionIsNearOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  expect_half_is_near(at::Device(at::kCUDA, 0));
}

TEST(BatchedDecoderTest, RefusesAnExtraOfThePlanByItsName) {
  ModelConfig config = testing::small_llama();
  config.qk_norm = true;
  Decoder model(config, DenseFactory());
  EXPECT_NE(why_not_batched(model).find("qk_norm"), std::string::npos) << why_not_batched(model);
}

// A layer that keeps a running number or has parameters that no plain layer has.
class OddFactory : public DenseFactory {
 public:
  explicit OddFactory(bool buffer) : buffer_(buffer) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    const std::string& name = spec.members[0].name;
    if (buffer_) build.buffers.declare(name + ".range", at::tensor({0.0F, 0.0F}));
    if (!buffer_) build.arena.declare({name + ".scale", {2}, Init::ones()});
    return DenseFactory::projections(build, spec);
  }

 private:
  bool buffer_;
};

TEST(BatchedDecoderTest, RefusesBuffersAndParametersThatItDoesNotRead) {
  Decoder buffers(testing::small_gpt2(), OddFactory(true)),
      parameters(testing::small_gpt2(), OddFactory(false)),
      plain(testing::small_gpt2(), DenseFactory());
  EXPECT_NE(why_not_batched(buffers).find("q_proj.range"), std::string::npos);
  EXPECT_NE(why_not_batched(parameters).find("q_proj.scale"), std::string::npos);
  EXPECT_EQ(why_not_batched(plain), "");
}

}  // namespace batched_decoder_test
}  // namespace refract
