// model.qk_norm: where the norms of q and k stand, and what they make of q and k. Gradients, caches
// and folders are tested with those of every setting; tests/parity compares with Qwen3.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <gtest/gtest.h>

#include <cmath>

#include "support/small_models.h"

namespace refract {
namespace qk_norm_test {

// Keeps what reaches the attention of the first layer.
struct Seen {
  at::Tensor q, k, v;
};

class Recorder : public AttentionCore {
 public:
  Recorder(const AttentionSpec& spec, Seen& seen)
      : inner_(spec), first_(spec.layer == 0), seen_(seen) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& q, const at::Tensor& k,
                     const at::Tensor& v) override {
    if (first_) seen_ = {q, k, v};
    return inner_.forward(context, q, k, v);
  }

 private:
  SdpaAttention inner_;
  bool first_;
  Seen& seen_;
};

class RecordingFactory : public DenseFactory {
 public:
  explicit RecordingFactory(Seen& seen) : seen_(seen) {}
  std::unique_ptr<AttentionCore> attention(Build, const AttentionSpec& spec) const override {
    return std::make_unique<Recorder>(spec, seen_);
  }

 private:
  Seen& seen_;
};

ModelConfig with_norms(ModelConfig config) {
  config.qk_norm = true;
  return config;
}

TEST(QkNormTest, DeclaresOneWeightPerLayerForQAndK) {
  const Decoder decoder(with_norms(testing::small_llama()), DenseFactory());
  int64_t found = 0;
  for (const Parameter& parameter : decoder.arena().parameters()) {
    if (!parameter.name.ends_with(".q_norm.weight") && !parameter.name.ends_with(".k_norm.weight"))
      continue;
    EXPECT_EQ(parameter.shape, (std::vector<int64_t>{4})) << parameter.name;
    EXPECT_EQ(parameter.init.kind, Init::Kind::kOnes) << parameter.name;
    ++found;
  }
  EXPECT_EQ(found, 2 * 2);
}

// Rotary positions turn a head and keep its length, so each head's mean square shows its norm: with
// a weight of w in every channel it is w^2. The cosines and sines are fp32 numbers, whose squares
// add up to 1 within 2^-22.
TEST(QkNormTest, EveryHeadOfQAndKHasTheLengthOfItsWeightAndVIsAsItWas) {
  for (ModelConfig base : {testing::small_llama(), testing::small_gpt2()}) {
    base.norm_eps = 1e-15;  // too small to show in the length of the shortest head
    const ModelConfig config = with_norms(base);
    Seen plain, normed;
    auto without = testing::make_decoder(base, at::kDouble, RecordingFactory(plain)),
         with = testing::make_decoder(config, at::kDouble, RecordingFactory(normed));
    with->arena().value(with->arena().find("model.layers.0.self_attn.q_norm.weight")).fill_(3);
    with->arena().value(with->arena().find("model.layers.0.self_attn.k_norm.weight")).fill_(0.5);
    const at::NoGradGuard no_grad;
    const at::Tensor tokens = testing::tokens_for(config, 2, 9);
    without->hidden({}, tokens);
    with->hidden({}, tokens);
    const auto mean_square = [](const at::Tensor& x) {
      return x.square().mean({-1}, /*keepdim=*/false);
    };
    const double relative = base.position == "rope" ? std::exp2(-22) : 1e-9;
    EXPECT_LT(mean_square(normed.q).div(9).sub(1).abs().max().item<double>(), relative);
    EXPECT_LT(mean_square(normed.k).div(0.25).sub(1).abs().max().item<double>(), relative);
    EXPECT_GT(mean_square(plain.q).sub(9).abs().max().item<double>(), 0.1);
    EXPECT_TRUE(at::allclose(normed.v, plain.v, 1e-12, 1e-12));
    // The direction of a head is its own, since the weight is the same in every channel.
    const at::Tensor cosine =
        normed.q.mul(plain.q).sum(-1).div(normed.q.norm(2, {-1}).mul(plain.q.norm(2, {-1})));
    EXPECT_LT(cosine.sub(1).abs().max().item<double>(), 1e-9);
  }
}

}  // namespace qk_norm_test
}  // namespace refract
