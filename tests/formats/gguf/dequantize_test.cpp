#include "formats/gguf/dequantize.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "support/gguf_file.h"

namespace refract {
namespace dequantize_test {

using testing::raw;

std::vector<float> values_of(uint32_t number, const std::string& bytes, int64_t count) {
  std::vector<float> out(static_cast<size_t>(count), -99.0F);
  dequantize(*find_gguf_type(number), reinterpret_cast<const std::byte*>(bytes.data()), count,
             out.data());
  return out;
}

// float16 bits.
constexpr uint16_t kOne = 0x3c00, kHalf = 0x3800, kMinusTwo = 0xc000, kThird = 0x3555;

TEST(Dequantize, SmallBlocks) {
  std::string nibbles;
  for (int i = 0; i < 16; ++i) nibbles += static_cast<char>(i | (15 - i) << 4);
  const auto q4_0 = values_of(kGgufQ4_0, raw(kHalf) + nibbles, 32);
  EXPECT_EQ(q4_0[0], -4);
  EXPECT_EQ(q4_0[15], 3.5);
  EXPECT_EQ(q4_0[16], 3.5);
  EXPECT_EQ(q4_0[31], -4);
  const auto q4_1 = values_of(kGgufQ4_1, raw(kHalf) + raw(kMinusTwo) + nibbles, 32);
  EXPECT_EQ(q4_1[0], -2);
  EXPECT_EQ(q4_1[15], 5.5);
  EXPECT_EQ(q4_1[17], 5);
  const auto q5_0 = values_of(kGgufQ5_0, raw(kOne) + raw(uint32_t{0x80000001}) + nibbles, 32);
  EXPECT_EQ(q5_0[0], 0) << "0 with its fifth bit, less 16";
  EXPECT_EQ(q5_0[1], -15);
  EXPECT_EQ(q5_0[31], 0);
  const auto q5_1 =
      values_of(kGgufQ5_1, raw(kOne) + raw(kMinusTwo) + raw(uint32_t{2}) + nibbles, 32);
  EXPECT_EQ(q5_1[0], -2);
  EXPECT_EQ(q5_1[1], 15);
  std::string bytes;
  for (int i = 0; i < 32; ++i) bytes += static_cast<char>(i - 16);
  const auto q8_0 = values_of(kGgufQ8_0, raw(kHalf) + bytes, 32);
  EXPECT_EQ(q8_0[0], -8);
  EXPECT_EQ(q8_0[31], 7.5);
}

// The sum is rounded after the product was: a fused operation gives other bits for some of these.
TEST(Dequantize, RoundsTheProductByItself) {
  const float d = values_of(kGgufF16, raw(kThird), 1)[0];
  const std::string bytes = raw(kThird) + raw(uint16_t{0x2e66}) + std::string(16, '\x7d');
  const float m = values_of(kGgufF16, raw(uint16_t{0x2e66}), 1)[0];
  const auto values = values_of(kGgufQ4_1, bytes, 32);
  const auto twice_rounded = static_cast<float>(static_cast<double>(d) * 13);
  EXPECT_EQ(values[0], static_cast<float>(static_cast<double>(twice_rounded) + m));
}

TEST(Dequantize, LargeBlocks) {
  // Scales 1..8 in six bits each, minimums 0 but for the last part, whose is 63.
  std::string scales(12, '\0');
  for (size_t i = 0; i < 4; ++i) scales[i] = static_cast<char>(i + 1);
  for (size_t i = 4; i < 8; ++i) scales[i + 4] = static_cast<char>(i + 1);
  scales[7] = static_cast<char>(0xc0);   // the minimum's two high bits
  scales[11] = static_cast<char>(0xf8);  // its low four, above the scale's
  const std::string units = raw(kOne) + raw(kHalf), low(128, '\x21');
  const auto q4 = values_of(kGgufQ4_K, units + scales + low, 256);
  EXPECT_EQ(q4[0], 1);
  EXPECT_EQ(q4[32], 2 * 2) << "the high nibbles are the second part";
  EXPECT_EQ(q4[4 * 32], 5);
  EXPECT_EQ(q4[7 * 32], 8 * 2 - 31.5);
  const auto q5 = values_of(kGgufQ5_K, units + scales + std::string(32, '\x02') + low, 256);
  EXPECT_EQ(q5[0], 1);
  EXPECT_EQ(q5[32], 2 * (2 + 16)) << "bit 1 of the mask is the second part's";
  // 128 elements twice; 16 scales, signed.
  std::string q6_scales;
  for (int i = 0; i < 16; ++i) q6_scales += static_cast<char>(i - 8);
  const auto q6 = values_of(
      kGgufQ6_K,
      std::string(128, '\x21') + std::string(64, static_cast<char>(0xe4)) + q6_scales + raw(kOne),
      256);
  EXPECT_EQ(q6[0], -8 * (1 - 32.0F));
  EXPECT_EQ(q6[32], -6 * (1 + 16 - 32.0F));
  EXPECT_EQ(q6[64], -4 * (2 + 32 - 32.0F));
  EXPECT_EQ(q6[96], -2 * (2 + 48 - 32.0F));
  EXPECT_EQ(q6[255], 7 * (2 + 48 - 32.0F));
}

TEST(Dequantize, KnowsWhatItReads) {
  for (const uint32_t number : {kGgufF32, kGgufF16, kGgufBF16, kGgufQ4_0, kGgufQ4_1, kGgufQ5_0,
                                kGgufQ5_1, kGgufQ8_0, kGgufQ4_K, kGgufQ5_K, kGgufQ6_K})
    EXPECT_TRUE(is_dequantized(*find_gguf_type(number))) << number;
  for (const uint32_t number : {10u, 11u, 15u, 20u, 24u, 39u})
    EXPECT_FALSE(is_dequantized(*find_gguf_type(number))) << number;
  EXPECT_EQ(find_gguf_type(4), nullptr);
}

TEST(QuantizeQ8, IsWithinHalfAStep) {
  std::vector<float> values(64);
  for (int i = 0; i < 64; ++i)
    values[static_cast<size_t>(i)] = std::sin(0.7F * static_cast<float>(i));
  for (int i = 32; i < 64; ++i) values[static_cast<size_t>(i)] = 0;
  std::string bytes(2 * 34, '\x55');
  quantize_q8_0(values.data(), 64, reinterpret_cast<std::byte*>(bytes.data()));
  const auto back = values_of(kGgufQ8_0, bytes, 64);
  for (size_t i = 0; i < 64; ++i)
    EXPECT_NEAR(back[i], values[i], 0.5 / 127 + 1e-3) << "and float16's rounding of the scale";
  EXPECT_EQ(back[40], 0) << "a block of zeros";
  // Halves go away from zero.
  std::vector<float> halves(32);
  halves[0] = 127;
  halves[1] = 0.5F;
  halves[2] = -2.5F;
  quantize_q8_0(halves.data(), 32, reinterpret_cast<std::byte*>(bytes.data()));
  EXPECT_EQ(values_of(kGgufQ8_0, bytes, 32)[1], 1);
  EXPECT_EQ(values_of(kGgufQ8_0, bytes, 32)[2], -3);
}

}  // namespace dequantize_test
}  // namespace refract
