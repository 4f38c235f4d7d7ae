#include "ops/optical/quantize/mase_noise.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "ops/common/philox.h"
#include "ops/optical/quantize/quantization_math.h"

namespace refract {
namespace {

constexpr int64_t kMask = 0xffffffff;

at::Tensor low(const at::Tensor& t) { return t.bitwise_and(kMask); }
at::Tensor high(const at::Tensor& t) { return low(t.bitwise_right_shift(32)); }

// The first word of philox({seed, seed >> 32}, 0, 0): the key, not the counter, is a tensor here.
at::Tensor first_word(const at::Tensor& seeds) {
  at::Tensor c0 = at::zeros_like(seeds), c1 = c0, c2 = c0, c3 = c0;
  at::Tensor k0 = low(seeds), k1 = high(seeds);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const at::Tensor p0 = c0.mul(int64_t{0xD2511F53}), p1 = c2.mul(int64_t{0xCD9E8D57});
    c0 = high(p1).bitwise_xor(c1).bitwise_xor(k0);
    c2 = high(p0).bitwise_xor(c3).bitwise_xor(k1);
    c1 = low(p1);
    c3 = low(p0);
    k0 = low(k0.add(int64_t{0x9E3779B9}));
    k1 = low(k1.add(int64_t{0xBB67AE85}));
  }
  return c0;
}

at::Tensor on_host(const at::Tensor& seeds) {
  const at::Tensor from = seeds.contiguous();
  at::Tensor numbers = at::empty(from.sizes(), from.options().dtype(at::kFloat));
  for (int64_t i = 0; i < from.numel(); ++i) {
    numbers.mutable_data_ptr<float>()[i] =
        optical::mase_shared_noise(static_cast<uint64_t>(from.const_data_ptr<int64_t>()[i]));
  }
  return numbers;
}

}  // namespace

at::Tensor mase_shared_noise(const at::Tensor& seeds) {
  TORCH_CHECK(seeds.scalar_type() == at::kLong,
              "refract::mase_shared_noise: expected int64 seeds, got ", seeds.scalar_type());
  return seeds.is_cpu() ? on_host(seeds) : composite::mase_shared_noise(seeds);
}

// As optical::mase_shared_noise(): the word as a signed number, its magnitude, one step of floats.
at::Tensor composite::mase_shared_noise(const at::Tensor& seeds) {
  const at::Tensor word = first_word(seeds);
  const at::Tensor magnitude = at::where(word.gt(kMask / 2), word.neg().add(kMask), word);
  return magnitude.to(at::kFloat).mul(4.6566127342e-10f).sub(0.5f);
}

}  // namespace refract
