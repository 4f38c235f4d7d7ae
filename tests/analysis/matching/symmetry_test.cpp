#include "analysis/matching/symmetry.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "support/small_models.h"
#include "support/symmetries.h"
#include "support/tolerances.h"

namespace refract {
namespace symmetry_test {

using testing::every_setting;
using testing::expect_close;
using testing::logits;
using testing::make_decoder;
using testing::shuffle;

TEST(Symmetry, LeavesTheFunctionOfEverySettingAlone) {
  for (const auto& [name, config] : every_setting()) {
    auto model = make_decoder(config, at::kDouble);
    const at::Tensor before = logits(*model);
    NamedWeights weights = named_weights(*model);
    shuffle(weights, config, 3);
    write_weights(weights, *model);
    EXPECT_FALSE(at::equal(
        weights.at("model.embed_tokens.weight"),
        named_weights(*make_decoder(config, at::kDouble)).at("model.embed_tokens.weight")));
    expect_close(logits(*model), before, name);
  }
}

}  // namespace symmetry_test
}  // namespace refract
