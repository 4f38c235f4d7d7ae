// Evaluating an fp32 model on a GPU takes its head's logits from tensor cores where it can.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>
#include <gtest/gtest.h>

#include "model/dense.h"
#include "ops/dense/loss/cross_entropy.h"
#include "support/cuda_guard.h"
#include "support/training.h"

namespace refract {
namespace split_head_test {

// Its logits have a deviation of several nats, as those of trained models.
std::unique_ptr<Decoder> model_of_width(int64_t width) {
  ModelConfig c;
  c.vocab_size = 50257;
  c.hidden_size = width;
  c.num_hidden_layers = 1;
  c.num_attention_heads = width / 32;
  c.max_position_embeddings = 64;
  resolve(c, 0, 0);
  auto model = std::make_unique<Decoder>(c, DenseFactory());
  model->allocate(at::Device(at::kCUDA, 0), at::kFloat);
  model->initialize(3);
  model->arena().value(model->arena().find("model.embed_tokens.weight")).mul_(20);
  model->arena().refresh_compute();
  return model;
}

// Expected: a logit is off by at most 3 * 2^-16 of the sum of its products' magnitudes, as a rule
// by 1e-5 of its deviation, either way, of which a mean over thousands of tokens keeps some 1e-8;
// and each of the tensor cores' width / 16 steps shrinks it by some 2^-26 of itself, since they
// round toward zero: 4e-7 at width 384, 7e-7 at 608. Width 640 has no such kernel.
TEST(SplitHead, GivesTheFp32LossOnCuda) {
  REFRACT_CUDA_OR_SKIP();
  const at::NoGradGuard no_grad;
  for (int64_t width : {64, 192, 384, 608, 640}) {
    const auto model = model_of_width(width);
    const auto ints = at::TensorOptions().dtype(at::kInt);
    const at::Tensor tokens = at::randint(50257, {64, 64}, ints).to(model->device()),
                     targets = at::randint(50257, {64, 64}, ints).to(model->device());
    const Decoder::Loss found = model->loss({}, tokens, targets),
                        again = model->loss({}, tokens, targets);
    const Parameter* head = model->arena().find("model.embed_tokens.weight");
    const CrossEntropy plain =
        linear_cross_entropy(model->hidden({}, tokens), model->arena().leaf(head), targets, 50257);
    const double loss = found.sum.item<double>(), expected = plain.loss_sum.item<double>();
    EXPECT_NEAR(loss / expected, 1, 1e-6) << width;
    EXPECT_NEAR(found.correct.item<double>(), plain.num_correct.item<double>(), 2) << width;
    EXPECT_EQ(loss, again.sum.item<double>()) << width;
  }
}

}  // namespace split_head_test
}  // namespace refract
