// Schemas, checks, composite forms and autograd of bit_flip.
#include "ops/numeric/bit_flip.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "ops/common/autograd.h"
#include "ops/common/check.h"
#include "ops/common/define.h"
#include "ops/common/philox_tensor.h"
#include "ops/numeric/flips.h"

namespace refract {

void bit_flip_op::check(const BitFlipInputs& in) {
  check_floating("bit_flip", "x", in.x);
  const auto fits = [](int64_t flips) { return flips >= 0 && flips <= 24; };
  TORCH_CHECK(fits(in.exponent_flips) && fits(in.fraction_flips),
              "refract::bit_flip: expected 0 to 24 random bits per mask bit, got ",
              in.exponent_flips, " and ", in.fraction_flips);
  TORCH_CHECK(!in.zero_out || *in.zero_out > 0,
              "refract::bit_flip: expected zero_out to be positive, got ", in.zero_out.value_or(0));
  TORCH_CHECK(
      in.clock.scalar_type() == at::kLong && in.clock.dim() == 1 && in.clock.sym_size(0) == 2,
      "refract::bit_flip: expected clock to be int64 [2] (step, first element), got ",
      in.clock.scalar_type(), " ", in.clock.sym_sizes());
  TORCH_CHECK(in.clock.device() == in.x.device(), "refract::bit_flip: expected clock on ",
              in.x.device(), " as x, got ", in.clock.device());
}

void bit_flip_op::check_backward(const BitFlipBackwardInputs& in) {
  check(forward_of(in));
  check_like("bit_flip_backward", "grad", in.grad, "x", in.x);
  check_same_shape("bit_flip_backward", "grad", in.grad, "x", in.x);
}

namespace composite {
namespace {

// int64 [n]: the mask of every element.
at::Tensor masks(const BitFlipInputs& in, const numeric::FlipType& type, const numeric::Flips& f) {
  const int blocks = blocks_per_element(type, f);
  const at::Tensor places =
      at::arange(in.x.numel() * blocks, in.clock.options()) + in.clock[1] * blocks;
  const PhiloxKey key =
      philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  const at::Tensor words =
      philox_words(key, in.clock[0], places, kNoiseRounds).view({-1, 4 * blocks});
  at::Tensor chain, mask = at::zeros_like(words.select(1, 0));
  for (int n = 1; n <= most_flips(f); ++n) {
    const int place = n - 1;
    at::Tensor random = words.select(1, type.bits == 32 ? place : place / 2);
    if (type.bits == 16 && place % 2 != 0) random = random.bitwise_right_shift(16);
    chain = chain.defined() ? chain.bitwise_and(random) : random;
    if (n == f.exponent) mask = mask.bitwise_or(chain.bitwise_and(type.sign_and_exponent));
    if (n == f.fraction) mask = mask.bitwise_or(chain.bitwise_and(type.fraction));
  }
  return mask;
}

// int64 [n]: whether element by element more than `darts` were thrown at its group. The words are
// compared by halves, since 64 bits have no sign here.
at::Tensor more_than(const at::Tensor& words, const numeric::Darts& d, int darts) {
  const auto limit = d.at_most[darts];
  const auto high = static_cast<int64_t>(limit >> 32), low = static_cast<int64_t>(limit & ~0u);
  const at::Tensor first = words.select(1, 0), second = words.select(1, 1);
  return first.gt(high).logical_or(first.eq(high).logical_and(second.ge(low)));
}

// The same masks of rare flips: what falls on an element of its group's darts.
at::Tensor rare_masks(const BitFlipInputs& in, const numeric::FlipType& type,
                      const numeric::Flips& f) {
  const numeric::RareFlips rare = numeric::rare_flips_of(type, f);
  const int64_t per_group = numeric::kGroupBits / type.bits;
  const at::Tensor element = at::arange(in.x.numel(), in.clock.options()) + in.clock[1];
  const at::Tensor group = element.floor_divide(per_group);
  const at::Tensor place = element.sub(group.mul(per_group));
  const PhiloxKey key =
      philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  at::Tensor mask = at::zeros_like(element);
  for (int process = 0; process < rare.processes; ++process) {
    const auto words_of = [&](int second) {
      const auto tag = static_cast<int64_t>(numeric::dart_block(process, second, 0));
      return philox_words(key, in.clock[0], group.bitwise_or(tag), kNoiseRounds);
    };
    const at::Tensor words = words_of(0), more = words_of(1);
    const numeric::Darts& darts = rare.darts[process];
    for (int dart = 0; dart < darts.count; ++dart) {
      const at::Tensor from =
          dart < 8 ? words.select(1, 2 + dart / 4) : more.select(1, (dart - 8) / 4);
      const at::Tensor at = from.bitwise_right_shift(8 * (dart % 4)).bitwise_and(127);
      const at::Tensor hit =
          more_than(words, darts, dart).logical_and(at.floor_divide(type.bits).eq(place));
      const at::Tensor bit = at::ones_like(at).bitwise_left_shift(at.remainder(type.bits));
      mask = mask.bitwise_or(at::where(hit, bit, at::zeros_like(bit))
                                 .bitwise_and(static_cast<int64_t>(
                                     rare.bits[process] & (type.bits == 32 ? ~0u : 0xffffu))));
    }
  }
  return mask;
}

// x with its bits flipped, nothing zeroed.
at::Tensor flipped(const BitFlipInputs& in, const numeric::Flips& f) {
  if (most_flips(f) == 0 || in.x.numel() == 0) return in.x.contiguous();
  const at::ScalarType own = numeric::flipped_type(in.x.scalar_type());
  const at::Tensor x = in.x.contiguous().to(own);
  const numeric::FlipType type = numeric::flip_type(own);
  const at::ScalarType whole = type.bits == 32 ? at::kInt : at::kShort;
  const at::Tensor mask = is_rare(f) ? rare_masks(in, type, f) : masks(in, type, f);
  const at::Tensor y = x.view(whole).to(at::kLong).flatten().bitwise_xor(mask).to(whole).view(own);
  const at::Tensor wide = y.view(x.sizes()).to(in.x.scalar_type());
  return at::where(mask.eq(0).view(x.sizes()), in.x, wide);
}

at::Tensor kept(const at::Tensor& flipped, const numeric::Flips& f) {
  return flipped.abs().to(at::kFloat).lt(f.zero_out);
}

}  // namespace

at::Tensor bit_flip(const BitFlipInputs& in) {
  bit_flip_op::check(in);
  const numeric::Flips f = numeric::flips_of(in);
  const at::Tensor y = flipped(in, f);
  if (f.zeroes) return at::where(kept(y, f), y, at::zeros_like(y));
  return y.is_same(in.x) ? y.clone() : y;
}

at::Tensor bit_flip_backward(const BitFlipBackwardInputs& in) {
  bit_flip_op::check_backward(in);
  const BitFlipInputs forward = bit_flip_op::forward_of(in);
  const numeric::Flips f = numeric::flips_of(forward);
  const at::Tensor grad = in.grad.contiguous();
  if (!f.zeroes) return grad.clone();
  return at::where(kept(flipped(forward, f), f), grad, at::zeros_like(grad));
}

}  // namespace composite

namespace {

struct BitFlip {
  static at::Tensor forward(AutogradContext* ctx, const BitFlipInputs& in) {
    ctx->save_for_backward({in.x, in.clock});
    ctx->saved_data["exponent"] = in.exponent_flips;
    ctx->saved_data["fraction"] = in.fraction_flips;
    ctx->saved_data["zero_out"] = in.zero_out;
    ctx->saved_data["seed"] = in.seed;
    ctx->saved_data["stream"] = in.stream;
    return bit_flip(in);
  }
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const auto& data = ctx->saved_data;
    const auto zero_out = data.at("zero_out").toOptional<double>();
    if (!zero_out) return {grads[0]};
    const auto saved = ctx->get_saved_variables();
    return {bit_flip_backward(grads[0], saved[0], data.at("exponent").toInt(),
                              data.at("fraction").toInt(), zero_out, data.at("seed").toInt(),
                              data.at("stream").toInt(), saved[1])};
  }
};

at::Tensor bit_flip_autograd(const BitFlipInputs& in) {
  return recorded<BitFlip>(bit_flip, in, in.x);
}

at::Tensor bit_flip_meta(const BitFlipInputs& in) {
  bit_flip_op::check(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

at::Tensor bit_flip_backward_meta(const BitFlipBackwardInputs& in) {
  bit_flip_op::check_backward(in);
  return at::empty_symint(in.x.sym_sizes(), in.x.options());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  define(m, bit_flip,
         "(Tensor x, int exponent_flips, int fraction_flips, float? zero_out, int seed,"
         " int stream, Tensor clock) -> Tensor")
      .composite<composite::bit_flip>()
      .autograd<bit_flip_autograd>()
      .meta<bit_flip_meta>();
  define(m, bit_flip_backward,
         "(Tensor grad, Tensor x, int exponent_flips, int fraction_flips, float? zero_out,"
         " int seed, int stream, Tensor clock) -> Tensor")
      .composite<composite::bit_flip_backward>()
      .meta<bit_flip_backward_meta>();
}

}  // namespace refract
