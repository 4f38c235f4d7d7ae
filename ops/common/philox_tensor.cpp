#include "ops/common/philox_tensor.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>

namespace refract::composite {
namespace {

constexpr int64_t kMask = 0xffffffff;

at::Tensor low(const at::Tensor& t) { return t.bitwise_and(kMask); }
at::Tensor high(const at::Tensor& t) { return low(t.bitwise_right_shift(32)); }

}  // namespace

// ops/common/philox.h in tensor arithmetic.
at::Tensor philox_words(PhiloxKey key, const at::Tensor& step, const at::Tensor& block,
                        int rounds) {
  at::Tensor c0 = low(block), c1 = high(block);
  at::Tensor c2 = low(step).expand_as(c0), c3 = high(step).expand_as(c0);
  int64_t k0 = key.lo, k1 = key.hi;
  for (int round = 0; round < rounds; ++round) {
    const at::Tensor p0 = c0.mul(int64_t{0xD2511F53}), p1 = c2.mul(int64_t{0xCD9E8D57});
    c0 = high(p1).bitwise_xor(c1).bitwise_xor(k0);
    c2 = high(p0).bitwise_xor(c3).bitwise_xor(k1);
    c1 = low(p1);
    c3 = low(p0);
    k0 = (k0 + 0x9E3779B9) & kMask;
    k1 = (k1 + 0xBB67AE85) & kMask;
  }
  return at::stack({c0, c1, c2, c3}, -1);
}

at::Tensor philox_uniforms_of(const at::Tensor& words) {
  return words.bitwise_right_shift(8).to(at::kFloat).mul(1.0f / 16777216.0f);
}

at::Tensor philox_uniforms(PhiloxKey key, const at::Tensor& step, const at::Tensor& first,
                           int64_t count) {
  const at::Tensor first_block = first.bitwise_right_shift(2);
  const at::Tensor blocks = at::arange(count / 4 + 2, first.options()).add(first_block);
  const at::Tensor index = at::arange(count, first.options()).add(first.sub(first_block.mul(4)));
  const at::Tensor words = philox_words(key, step, blocks).flatten().index_select(0, index);
  return philox_uniforms_of(words);
}

at::Tensor philox_halves(PhiloxKey key, const at::Tensor& step, const at::Tensor& first,
                         int64_t count) {
  const at::Tensor first_block = first.bitwise_right_shift(3);
  const at::Tensor blocks = at::arange(count / 8 + 2, first.options()).add(first_block);
  const at::Tensor index = at::arange(count, first.options()).add(first.sub(first_block.mul(8)));
  const at::Tensor words = philox_words(key, step, blocks, kNoiseRounds);
  return at::stack({words.bitwise_and(0xffff), words.bitwise_right_shift(16)}, -1)
      .flatten()
      .index_select(0, index)
      .to(at::kFloat);
}

}  // namespace refract::composite
