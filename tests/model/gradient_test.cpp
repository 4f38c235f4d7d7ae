// The gradient of the loss with respect to every parameter, in float64 against central differences.
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include "support/small_models.h"

namespace refract {
namespace gradient_test {

void check_gradients(const std::string& name, const ModelConfig& config) {
  auto decoder = testing::make_decoder(config, at::kDouble);
  const at::Tensor tokens = testing::tokens_for(config, 2, 6);
  const at::Tensor targets = testing::tokens_for(config, 2, 7).narrow(1, 1, 6).contiguous();
  ForwardContext context;
  context.training = config.dropout > 0;
  context.seed = 3;
  context.clock = at::tensor({int64_t{4}, int64_t{0}}, at::kLong);
  auto loss = [&] { return decoder->loss(context, tokens, targets).sum; };
  const at::Tensor total = loss();
  ASSERT_EQ(total.scalar_type(), at::kDouble);
  total.backward();
  const at::NoGradGuard no_grad;
  constexpr double h = 1e-5;
  for (const Parameter& p : decoder->arena().parameters()) {
    at::Tensor value = decoder->arena().value(&p).view({-1});
    const at::Tensor gradient = decoder->arena().gradient(&p).reshape({-1});
    const int64_t n = value.numel();
    for (int64_t i : {int64_t{0}, n / 3, n / 2 + 1, n - 1}) {
      const double kept = value[i].item<double>();
      value[i] = kept + h;
      const double up = loss().item<double>();
      value[i] = kept - h;
      const double down = loss().item<double>();
      value[i] = kept;
      const double expected = (up - down) / (2 * h);
      EXPECT_NEAR(gradient[i].item<double>(), expected, 1e-6 * std::max(1.0, std::abs(expected)))
          << name << ": " << p.name << "[" << i << "]";
    }
  }
}

// Thousands of tiny losses: a second thread only costs.
class GradientTest : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }
  void TearDown() override { at::set_num_threads(threads_); }

 private:
  int threads_ = at::get_num_threads();
};

TEST_F(GradientTest, OfEverySettingIsRight) {
  for (const auto& [name, config] : testing::every_setting()) check_gradients(name, config);
}

// Over the limit from which rows are padded.
TEST_F(GradientTest, OfAPaddedVocabularyIsRight) {
  ModelConfig config = testing::small_gpt2();
  config.vocab_size = 1027;
  config.tie_word_embeddings = false;
  check_gradients("padded", config);
}

}  // namespace gradient_test
}  // namespace refract
