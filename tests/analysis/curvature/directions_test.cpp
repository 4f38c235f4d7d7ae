#include "analysis/curvature/directions.h"

#include <gtest/gtest.h>

#include <cmath>
#include <memory>

#include "support/small_models.h"

namespace refract {
namespace directions_test {

using testing::make_decoder;

at::Tensor part_of(const at::Tensor& flat, const Parameter& parameter) {
  return flat.narrow(0, parameter.offset, parameter.numel()).view(parameter.shape);
}

TEST(Directions, FiltersAreAsLongAsTheModelsOwn) {
  for (const auto& [name, config] : testing::every_setting()) {
    const std::unique_ptr<Decoder> model = make_decoder(config, at::kDouble);
    const at::Tensor flat = filter_normalized(*model, 4, "x");
    for (const Parameter& parameter : model->arena().parameters()) {
      const at::Tensor part = part_of(flat, parameter);
      if (parameter.shape.size() < 2) {
        EXPECT_EQ(part.abs().max().item<double>(), 0) << name << ": " << parameter.name;
        continue;
      }
      const at::Tensor own = model->arena().value(&parameter);
      const at::Tensor wrong = part.norm(2, {-1}).sub(own.norm(2, {-1})).abs().max();
      EXPECT_LT(wrong.item<double>(), 1e-12) << name << ": " << parameter.name;
      EXPECT_GT(part.sub(own).abs().max().item<double>(), 0.01) << name << ": " << parameter.name;
    }
  }
}

TEST(Directions, AreThoseOfTheirSeedAndName) {
  const std::unique_ptr<Decoder> model = make_decoder(testing::small_llama());
  EXPECT_TRUE(filter_normalized(*model, 4, "x").equal(filter_normalized(*model, 4, "x")));
  EXPECT_FALSE(filter_normalized(*model, 4, "x").equal(filter_normalized(*model, 5, "x")));
  EXPECT_FALSE(filter_normalized(*model, 4, "x").equal(filter_normalized(*model, 4, "y")));
}

TEST(Directions, SignsLeavePaddingAlone) {
  const std::unique_ptr<Decoder> model = make_decoder(testing::small_gpt2());
  const at::Tensor signs = random_signs(*model, 1, "v");
  EXPECT_EQ(signs.abs().sum().item<double>(), static_cast<double>(model->arena().count()));
  EXPECT_EQ(signs.numel(), model->arena().core_size());
  // Half of some thousands, within four standard deviations.
  const auto count = static_cast<double>(model->arena().count());
  EXPECT_LT(std::abs(signs.sum().item<double>()), 4 * std::sqrt(count));
}

}  // namespace directions_test
}  // namespace refract
