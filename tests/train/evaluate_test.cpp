#include "train/evaluate.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/log_softmax.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "support/training.h"

namespace refract {
namespace evaluate_test {

// The oracle predicts every token by itself, from logits, in float64.
TEST(Evaluate, PredictsEveryTokenOnce) {
  TinyRun run(tiny_config("evaluate"));
  at::NoGradGuard no_grad;
  std::vector<int32_t> tokens(43);
  tiny_stream()->read(0, tokens);
  double sum = 0;
  int64_t correct = 0;
  for (int64_t begin = 0; begin + 1 < 43; begin += 8) {
    const int64_t length = std::min<int64_t>(8, 42 - begin);
    const at::Tensor input =
        at::from_blob(tokens.data() + begin, {1, length}, at::TensorOptions().dtype(at::kInt))
            .clone();
    const at::Tensor logits = run.model->logits(run.model->hidden({}, input)).to(at::kDouble)[0];
    const at::Tensor log_p = at::log_softmax(logits, -1);
    for (int64_t t = 0; t < length; ++t) {
      const int32_t target = tokens[begin + t + 1];
      sum -= log_p[t][target].item<double>();
      correct += logits[t].argmax().item<int64_t>() == target;
    }
  }
  const Evaluation result = evaluate(*run.model, *make_token_stream(tokens), 8);
  EXPECT_EQ(result.tokens, 42);
  EXPECT_NEAR(result.loss, sum / 42, 1e-5);
  EXPECT_EQ(std::llround(result.accuracy * 42), correct);
  EXPECT_EQ(evaluate(*run.model, *make_token_stream(tokens), 8, 2).tokens, 16);
}

}  // namespace evaluate_test
}  // namespace refract
