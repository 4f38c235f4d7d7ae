// Schema, checks and composite form of normal_noise.
#include "ops/numeric/normal_noise.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>

#include <numbers>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/philox_tensor.h"

namespace refract {

void normal_noise_op::check(const NormalNoiseInputs& in) {
  check_floating("normal_noise", "like", in.like);
  TORCH_CHECK(
      in.clock.scalar_type() == at::kLong && in.clock.dim() == 1 && in.clock.sym_size(0) == 2,
      "refract::normal_noise: expected clock to be int64 [2] (step, first element), got ",
      in.clock.scalar_type(), " ", in.clock.sym_sizes());
  TORCH_CHECK(in.clock.device() == in.like.device(), "refract::normal_noise: expected clock on ",
              in.like.device(), " as like, got ", in.clock.device());
}

at::Tensor composite::normal_noise(const NormalNoiseInputs& in) {
  normal_noise_op::check(in);
  const int64_t count = in.like.numel();
  const at::Tensor first = in.clock.select(0, 1), block = first.bitwise_right_shift(2);
  const at::Tensor blocks = at::arange(count / 4 + 2, in.clock.options()).add(block);
  const PhiloxKey key =
      philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  const at::Tensor uniform =
      philox_uniforms_of(philox_words(key, in.clock.select(0, 0), blocks, kNoiseRounds))
          .view({-1, 2});
  const at::Tensor radius = uniform.select(1, 0).neg().add(1).log().mul(-2).sqrt();
  const at::Tensor angle = uniform.select(1, 1).mul(2 * std::numbers::pi);
  const at::Tensor all =
      at::stack({radius.mul(angle.cos()), radius.mul(angle.sin())}, -1).flatten();
  const at::Tensor index = at::arange(count, in.clock.options()).add(first.sub(block.mul(4)));
  return all.index_select(0, index).view(in.like.sizes());
}

namespace {

// No input has a gradient.
at::Tensor normal_noise_autograd(const NormalNoiseInputs& in) {
  at::AutoDispatchBelowADInplaceOrView below;
  return normal_noise(in);
}

at::Tensor normal_noise_meta(const NormalNoiseInputs& in) {
  normal_noise_op::check(in);
  return at::empty_symint(in.like.sym_sizes(), in.like.options().dtype(at::kFloat));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, normal_noise, "(Tensor like, int seed, int stream, Tensor clock) -> Tensor")
      .composite<composite::normal_noise>()
      .autograd<normal_noise_autograd>()
      .meta<normal_noise_meta>();
}

}  // namespace refract
