// Optical attention: which noise it draws, whatever part of a sequence or a batch it computes.
#include <ATen/Context.h>
#include <ATen/ops/ones.h>

#include "ops/common/philox.h"
#include "ops/optical/attention_inputs.h"

namespace refract {
namespace optical_attention_noise_test {

using testing::clock_of;
using testing::identical;
using testing::set_ranges;
using testing::settings_of;
using testing::unset_ranges;
using Inputs = testing::AttentionInputs;

TEST(OpticalAttention, TheFutureHasNoEffect) {
  at::manual_seed(8);
  Inputs x({2, 40, 40, 4, 2, 16}, at::kFloat);
  OpticalAttentionSettings s = settings_of(16);
  s.train = false;
  const at::Tensor before = optical_attention(x.q, x.k, x.v, set_ranges(16), s);
  x.k.narrow(1, 23, 17).normal_();
  x.v.narrow(1, 23, 17).normal_();
  const at::Tensor after = optical_attention(x.q, x.k, x.v, set_ranges(16), s);
  EXPECT_TRUE(identical(before.narrow(1, 0, 23), after.narrow(1, 0, 23)));
  EXPECT_FALSE(identical(before.narrow(1, 23, 17), after.narrow(1, 23, 17)));
}

TEST(OpticalAttention, DecodingDrawsWhatTheSequenceDraws) {
  at::manual_seed(9);
  const Inputs x({2, 21, 21, 4, 2, 16}, at::kFloat);
  OpticalAttentionSettings s = settings_of(16);
  s.train = false;
  const at::Tensor whole = optical_attention(x.q, x.k, x.v, set_ranges(16), s);
  for (const int64_t begin : {0, 7, 8, 20}) {
    const int64_t count = std::min<int64_t>(21 - begin, 3), keys = begin + count;
    const at::Tensor part = optical_attention(x.q.narrow(1, begin, count), x.k.narrow(1, 0, keys),
                                              x.v.narrow(1, 0, keys), set_ranges(16), s);
    EXPECT_TRUE(identical(part, whole.narrow(1, begin, count))) << begin;
  }
}

TEST(OpticalAttention, PartsOfABatchDrawWhatTheWholeDraws) {
  at::manual_seed(10);
  const Inputs x({4, 18, 18, 2, 1, 8}, at::kFloat);
  OpticalAttentionSettings s = settings_of(8);
  s.train = false;
  const at::Tensor whole = optical_attention(x.q, x.k, x.v, set_ranges(8), s);
  const auto part = [&](int64_t step, int64_t first) {
    s.clock = clock_of(step, first);
    return optical_attention(x.q.narrow(0, 2, 2), x.k.narrow(0, 2, 2), x.v.narrow(0, 2, 2),
                             set_ranges(8), s);
  };
  const int64_t step = (int64_t{3} << 32) + 1;
  EXPECT_TRUE(identical(part(step, 7), whole.narrow(0, 2, 2)));
  EXPECT_FALSE(identical(part(step, 8), whole.narrow(0, 2, 2)));
  EXPECT_FALSE(identical(part(step + 1, 7), whole.narrow(0, 2, 2)));
}

TEST(OpticalAttention, SharedHeadsAreRepeatedHeads) {
  at::manual_seed(11);
  const Inputs x({2, 19, 19, 6, 2, 8}, at::kFloat);
  const OpticalAttentionSettings s = settings_of(8);
  const auto repeat = [](const at::Tensor& t) { return t.repeat_interleave(3, 2); };
  EXPECT_TRUE(identical(optical_attention(x.q, x.k, x.v, unset_ranges(), s),
                        optical_attention(x.q, repeat(x.k), repeat(x.v), unset_ranges(), s)));
}

TEST(OpticalAttention, NoiseIsPhiloxs) {
  for (const int64_t queries : {1, 4, 5}) {
    const int64_t keys = 37;
    const at::Tensor q = at::ones({2, queries, 3, 6}), k = at::ones({2, keys, 1, 6});
    OpticalAttentionSettings s = settings_of(6);
    const uint64_t step = (uint64_t{3} << 32) + 1;
    const at::Tensor scores = composite::optical_attention_score_xi(q, k, s);
    const at::Tensor out = composite::optical_attention_output_xi(q, k, s);
    ASSERT_EQ(scores.sizes(), at::IntArrayRef({2, 3, queries, keys}));
    ASSERT_EQ(out.sizes(), q.sizes());
    for (uint64_t b = 0; b < 2; ++b) {
      for (uint64_t h = 0; h < 3; ++h) {
        for (int64_t row = 0; row < queries; ++row) {
          const auto i = static_cast<uint64_t>(row + keys - queries);
          for (uint64_t j = 0; j < 37; ++j) {
            const uint64_t block =
                ((((b + 5) * 3 + h) << 19 | i / 2) << 19) + 4 * (j / 16) + j % 8 / 2;
            const PhiloxBlock drawn =
                noise_block(philox_key(17, static_cast<uint64_t>(-4)), step, block);
            const uint32_t word = drawn.word[2 * (i % 2) + j % 2];
            const uint32_t half = j % 16 < 8 ? word & 0xffff : word >> 16;
            EXPECT_FLOAT_EQ(scores[b][h][row][static_cast<int64_t>(j)].item<float>(),
                            (static_cast<float>(half) + 0.5f) / 65536 - 0.5f);
          }
          for (uint64_t d = 0; d < 6; ++d) {
            const uint64_t index = (((b + 5) << 20 | i) * 3 + h) * 6 + d;
            EXPECT_FLOAT_EQ(
                out[b][row][h][d].item<float>(),
                philox_uniform(noise_block(philox_key(17, 9), step, index / 4).word[index % 4]) -
                    0.5f);
          }
        }
      }
    }
  }
}

}  // namespace optical_attention_noise_test
}  // namespace refract
