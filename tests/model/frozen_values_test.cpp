// Frozen weights exist once, in the compute type.
#include "model/frozen_values.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "support/small_models.h"

namespace refract {
namespace frozen_values_test {

// A Llama whose first layer is frozen.
std::unique_ptr<Decoder> half_frozen(at::ScalarType compute) {
  auto model = std::make_unique<Decoder>(testing::small_llama(), DenseFactory());
  for (Parameter& parameter : model->arena().parameters())
    parameter.trainable = parameter.name.find("layers.0.") == std::string::npos;
  model->allocate(at::kCPU, compute);
  model->initialize(3);
  return model;
}

TEST(FrozenValues, LieBehindTheMastersInTheComputeType) {
  const auto model = half_frozen(at::kBFloat16);
  ParameterArena& arena = model->arena();
  EXPECT_EQ(arena.master().numel(), arena.trainable_size());
  const at::Tensor frozen = frozen_values(arena);
  EXPECT_EQ(frozen.scalar_type(), at::kBFloat16);
  EXPECT_EQ(frozen.numel(), arena.compute().numel() - arena.trainable_size());
  Parameter* weight = arena.find("model.layers.0.mlp.up_proj.weight");
  EXPECT_EQ(arena.value(weight).scalar_type(), at::kBFloat16);
  EXPECT_TRUE(at::equal(arena.value(weight), arena.leaf(weight).detach()));
  EXPECT_GT(arena.value(weight).abs().sum().item<float>(), 0);
  // The same numbers as where it is trained, rounded.
  const auto whole = testing::make_decoder(testing::small_llama());
  whole->initialize(3);
  const at::Tensor wide = whole->arena().value(whole->arena().find(weight->name));
  EXPECT_TRUE(at::equal(arena.value(weight), wide.to(at::kBFloat16)));
}

TEST(FrozenValues, OneTypeHasOneBuffer) {
  const auto model = half_frozen(at::kFloat);
  EXPECT_TRUE(model->arena().compute().is_same(model->arena().master()));
  EXPECT_EQ(frozen_values(model->arena()).numel(), 0);
}

TEST(FrozenValues, AllOfThemGoOutAndIn) {
  const auto from = half_frozen(at::kBFloat16), to = half_frozen(at::kBFloat16);
  to->initialize(4);
  EXPECT_FALSE(at::equal(from->arena().compute(), to->arena().compute()));
  const at::Tensor values = all_values(from->arena());
  EXPECT_EQ(values.scalar_type(), at::kFloat);
  set_all_values(to->arena(), values);
  EXPECT_TRUE(at::equal(from->arena().compute(), to->arena().compute()));
  EXPECT_TRUE(at::equal(from->arena().master(), to->arena().master()));
}

}  // namespace frozen_values_test
}  // namespace refract
