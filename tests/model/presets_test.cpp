// Every preset is declared (no memory is taken) and has the number of parameters its publication or
// its shapes give.
#include <gtest/gtest.h>

#include <map>

#include "model/decoder.h"
#include "model/dense.h"
#include "support/errors.h"

namespace refract {
namespace presets_test {

int64_t declared(ModelConfig config) {
  resolve(config, config.vocab_size ? 0 : 65, 0);
  const Decoder decoder(config, DenseFactory());
  EXPECT_FALSE(decoder.arena().allocated());
  return decoder.arena().count();
}

int64_t by_formula(const ModelConfig& c, int64_t V) {
  const int64_t C = c.hidden_size, F = c.intermediate_size ? c.intermediate_size : 4 * C;
  const int64_t D = c.head_dim ? c.head_dim : C / c.num_attention_heads,
                Q = D * c.num_attention_heads;
  const int64_t K = D * (c.num_key_value_heads ? c.num_key_value_heads : c.num_attention_heads);
  const int64_t norm = c.rms() ? C : 2 * C;
  int64_t layer = 2 * norm + C * (Q + 2 * K) + Q * C + (c.gated() ? 3 : 2) * C * F;
  if (c.attention_bias) layer += Q + 2 * K;
  if (c.attention_output_bias) layer += C;
  if (c.mlp_bias) layer += (c.gated() ? 2 : 1) * F + C;
  return (c.tie_word_embeddings ? 1 : 2) * V * C +
         (c.position == "learned" ? c.max_position_embeddings * C : 0) +
         c.num_hidden_layers * layer + norm;
}

TEST(PresetsTest, CountsAreThePublishedOnes) {
  // OpenAI's four as Hugging Face counts them; the study's own sizes, whose names round them.
  const std::map<std::string, int64_t> published = {{"gpt2", 124'439'808},
                                                    {"gpt2-medium", 354'823'168},
                                                    {"gpt2-large", 774'030'080},
                                                    {"gpt2-xl", 1'557'611'200}};
  for (const auto& [name, count] : published) EXPECT_EQ(declared(preset(name)), count) << name;
}

TEST(PresetsTest, EveryPresetIsDeclaredWithItsCount) {
  for (const std::string& name : preset_names()) {
    const ModelConfig config = preset(name);
    EXPECT_EQ(declared(config), by_formula(config, config.vocab_size ? config.vocab_size : 65))
        << name;
  }
}

TEST(PresetsTest, ClmSizesAreNearTheirNames) {
  const std::map<std::string, double> named = {{"clm-60m", 60e6},
                                               {"clm-200m", 200e6},
                                               {"clm-400m", 400e6},
                                               {"clm-600m", 600e6},
                                               {"clm-1.1b", 1.1e9}};
  for (const auto& [name, wanted] : named) {
    const ModelConfig c = preset(name);
    // F = 1.3 * 8C/3, rounded up to a multiple of 128.
    EXPECT_EQ(c.intermediate_size, (1300 * 8 * c.hidden_size / 3000 + 127) / 128 * 128) << name;
    // The published names leave out one of the two vocabulary matrices or neither: either is within
    // a fifth.
    const double all = static_cast<double>(declared(c));
    const double without_head = all - static_cast<double>(c.vocab_size * c.hidden_size);
    EXPECT_LT(std::min(std::abs(all / wanted - 1), std::abs(without_head / wanted - 1)), 0.2)
        << name << " " << all;
  }
}

TEST(PresetsTest, AnUnknownNameNamesTheNearest) {
  const std::string message = testing::usage_error_of([] { preset("gpt2-medum"); });
  EXPECT_TRUE(testing::has(message, "gpt2-medium"));
}

}  // namespace presets_test
}  // namespace refract
