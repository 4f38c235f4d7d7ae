// model.rotary_interleaved: rotary positions that turn neighbouring channels of a head together.
// Gradients, caches and folders are tested with those of every setting.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include "support/errors.h"
#include "support/small_models.h"

namespace refract {
namespace rotary_interleaved_test {

ModelConfig interleaved() {
  ModelConfig config = testing::small_llama();
  config.rotary_interleaved = true;
  return config;
}

// Rows of q and k in the order in which half a head apart turns together: of every head channels 2
// i first, then 2 i + 1. That is how Meta's Llama weights were converted for transformers.
void part_rows(Decoder& model, int64_t head_dim) {
  for (const Parameter& parameter : model.arena().parameters()) {
    if (!parameter.name.ends_with("q_proj.weight") && !parameter.name.ends_with("k_proj.weight"))
      continue;
    at::Tensor value = model.arena().value(&parameter);
    const at::Tensor heads = value.view({-1, head_dim / 2, 2, value.size(1)});
    value.copy_(heads.transpose(1, 2).reshape(value.sizes()).clone());
  }
  model.arena().refresh_compute();
}

TEST(RotaryInterleaved, IsTheOtherConventionOnReorderedWeights) {
  const at::NoGradGuard no_grad;
  const auto one = testing::make_decoder(interleaved(), at::kDouble);
  const auto other = testing::make_decoder(testing::small_llama(), at::kDouble);
  const at::Tensor tokens = testing::tokens_for(one->config(), 2, 7);
  const at::Tensor expected = one->hidden({}, tokens);
  EXPECT_FALSE(at::allclose(other->hidden({}, tokens), expected, 1e-3, 1e-3));
  part_rows(*other, one->config().head_dim);
  EXPECT_TRUE(at::allclose(other->hidden({}, tokens), expected, 1e-12, 1e-12));
}

TEST(RotaryInterleaved, NeedsRotaryPositions) {
  ModelConfig config = testing::small_gpt2();
  config.rotary_interleaved = true;
  EXPECT_TRUE(testing::has(testing::usage_error_of([&] { resolve(config, 0, 0); }),
                           "model.rotary_interleaved"));
}

}  // namespace rotary_interleaved_test
}  // namespace refract
