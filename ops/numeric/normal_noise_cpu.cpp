// CPU kernel of normal_noise: words are drawn for a chunk of elements, then turned into numbers.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <numbers>

#include "ops/common/define.h"
#include "ops/common/philox_cpu.h"
#include "ops/common/simd.h"
#include "ops/numeric/normal_noise.h"

namespace refract {
namespace {

constexpr int64_t kChunk = 256;  // elements

// ln x for 2^-24 <= x <= 1, by x = 2^e m with m around 1 and ln m = 2 artanh((m - 1) / (m + 1)).
REFRACT_INLINE float log_of(float x) {
  const uint32_t bits = std::bit_cast<uint32_t>(x);
  const auto half = static_cast<uint32_t>(0x3f3504f3);  // sqrt(1/2)
  const auto e = static_cast<int32_t>(bits - half) >> 23;
  const float m = std::bit_cast<float>(bits - (static_cast<uint32_t>(e) << 23));
  const float s = (m - 1.0f) / (m + 1.0f), q = s * s;
  const float series =
      1.0f + q * (1.0f / 3 + q * (1.0f / 5 + q * (1.0f / 7 + q * (1.0f / 9 + q * (1.0f / 11)))));
  return 2.0f * s * series + static_cast<float>(e) * std::numbers::ln2_v<float>;
}

// cos and sin of 2 pi u for 0 <= u < 1: of the rest within an eighth of a turn, and which quarter.
REFRACT_INLINE void turn(float u, float& cos, float& sin) {
  const float quarters = 4.0f * u;
  const float above = quarters + 0.5f;  // not below 0, so that its whole part is the nearest
  const auto whole = static_cast<int32_t>(above);
  const float x = (quarters - static_cast<float>(whole)) * (std::numbers::pi_v<float> / 2);
  const float q = x * x;
  const float s =
      x * (1.0f + q * (-1.0f / 6 + q * (1.0f / 120 + q * (-1.0f / 5040 + q * (1.0f / 362880)))));
  const float c = 1.0f + q * (-1.0f / 2 + q * (1.0f / 24 + q * (-1.0f / 720 + q * (1.0f / 40320))));
  const bool odd = (whole & 1) != 0, back = (whole & 2) != 0;
  const float along = odd ? -s : c, across = odd ? c : s;
  cos = back ? -along : along;
  sin = back ? -across : across;
}

// Pair j of out from words 2 j and 2 j + 1.
REFRACT_SIMD void to_normal(const uint32_t* __restrict words, float* __restrict out,
                            int64_t pairs) {
  for (int64_t j = 0; j < pairs; ++j) {
    const float u = static_cast<float>(static_cast<int32_t>(words[2 * j] >> 8)) * 0x1p-24f;
    const float v = static_cast<float>(static_cast<int32_t>(words[2 * j + 1] >> 8)) * 0x1p-24f;
    const float radius = std::sqrt(-2.0f * log_of(1.0f - u));
    float cos, sin;
    turn(v, cos, sin);
    out[2 * j] = radius * cos;
    out[2 * j + 1] = radius * sin;
  }
}

at::Tensor normal_noise_cpu(const NormalNoiseInputs& in) {
  normal_noise_op::check(in);
  const at::Tensor clock = in.clock.contiguous();
  at::Tensor out = at::empty(in.like.sizes(), at::TensorOptions().dtype(at::kFloat));
  const auto* now = clock.const_data_ptr<int64_t>();
  const auto step = static_cast<uint64_t>(now[0]), first = static_cast<uint64_t>(now[1]);
  const PhiloxKey key =
      philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream));
  auto* y = out.mutable_data_ptr<float>();
  at::parallel_for(0, out.numel(), 16 * kChunk, [&](int64_t begin, int64_t end) {
    std::array<uint32_t, kChunk + 8> words;
    std::array<float, kChunk + 8> numbers;
    for (int64_t i = begin; i < end; i += kChunk) {
      const int64_t n = std::min(kChunk, end - i);
      const uint64_t place = first + static_cast<uint64_t>(i), block = place >> 2;
      const auto before =
          static_cast<int64_t>(place & 3);  // numbers of the block that are not ours
      const int64_t blocks = (before + n + 3) / 4;
      simd::draw_noise(key, step, block, words.data(), blocks);
      to_normal(words.data(), numbers.data(), 2 * blocks);
      std::copy_n(numbers.data() + before, n, y + i);
    }
  });
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, normal_noise).cpu<normal_noise_cpu>(); }

}  // namespace refract
