#include "formats/gguf/gguf_model.h"

#include <ATen/ops/abs.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/max.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "formats/checkpoint.h"
#include "formats/gguf/gguf_config.h"
#include "formats/gguf/gguf_rope.h"
#include "formats/gguf/gguf_write.h"
#include "formats/load_weights.h"
#include "formats/model_path.h"
#include "support/errors.h"
#include "support/gguf_file.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"

namespace refract {
namespace gguf_model_test {

namespace fs = std::filesystem;
using testing::expect_error;
using testing::GgufFile;
using testing::make_decoder;
using testing::TemporaryFolder;

// One layer of one head of four channels.
GgufFile tiny() {
  GgufFile file;
  file.text("general.architecture", "llama");
  const std::vector<std::pair<std::string, uint32_t>> wholes = {{"context_length", 16},
                                                                {"embedding_length", 4},
                                                                {"block_count", 1},
                                                                {"feed_forward_length", 2},
                                                                {"attention.head_count", 1}};
  for (const auto& [key, value] : wholes) file.whole("llama." + key, value);
  file.number("llama.attention.layer_norm_rms_epsilon", 1e-5F);
  const auto add = [&](const std::string& name, uint64_t in, uint64_t out) {
    std::vector<float> values;
    for (uint64_t row = 0; row < out; ++row)
      values.insert(values.end(), in, static_cast<float>(row));
    file.floats(name, out == 1 ? std::vector<uint64_t>{in} : std::vector<uint64_t>{in, out},
                values);
  };
  add("token_embd.weight", 4, 3);
  add("output_norm.weight", 4, 1);
  for (const char* norm : {"attn_norm", "ffn_norm"})
    add(fmt::format("blk.0.{}.weight", norm), 4, 1);
  for (const char* part : {"attn_q", "attn_k", "attn_v", "attn_output"})
    add(fmt::format("blk.0.{}.weight", part), 4, 4);
  add("blk.0.ffn_gate.weight", 4, 2);
  add("blk.0.ffn_up.weight", 4, 2);
  add("blk.0.ffn_down.weight", 2, 4);
  return file;
}

TEST(GgufModel, ReadsAFileMadeByHand) {
  const TemporaryFolder folder;
  testing::write_text(folder / "m.gguf", tiny().bytes());
  const fs::path path = folder / "m.gguf";
  const ModelConfig config = read_model_config(path);
  EXPECT_EQ(config.vocab_size, 3);
  EXPECT_EQ(config.head_dim, 4);
  EXPECT_EQ(config.num_key_value_heads, 1);
  EXPECT_EQ(config.norm_eps, 1e-5);
  EXPECT_TRUE(config.tie_word_embeddings);
  const GgufTensors tensors(path);
  const at::Tensor q = tensors.tensor("model.layers.0.self_attn.q_proj.weight");
  const at::Tensor v = tensors.tensor("model.layers.0.self_attn.v_proj.weight");
  EXPECT_TRUE(at::equal(v.select(1, 0), at::arange(4, at::kFloat)));
  const std::vector<float> stored = {0, 2, 1, 3};
  for (int64_t row = 0; row < 4; ++row)
    EXPECT_EQ(q[row][0].item<float>(), stored[static_cast<size_t>(row)]) << "row " << row;
  EXPECT_EQ(tensors.find("blk.0.attn_q.weight"), nullptr);
  expect_error([&] { tensors.tensor("lm_head.weight"); }, {"m.gguf", "lm_head.weight"});
  EXPECT_EQ(resolve_model_path(path.string()), path);
  EXPECT_EQ(resolve_model_path(folder.path().string()), path) << "its folder's only weights";
  testing::write_text(folder / "n.gguf", tiny().bytes());
  expect_error([&] { resolve_model_path(folder.path().string()); }, {"several", "m.gguf, n.gguf"});
}

// A scaling of positions that GGUF files are not written with.
bool has_foreign_rope(const ModelConfig& config) {
  return config.rope_scaling == "yarn" || config.rope_scaling == "dynamic";
}

bool is_written(const ModelConfig& config) {
  const std::string family = hf_family(config).name;
  if (has_foreign_rope(config)) return false;
  if (family == "qwen2") return true;
  return (family == "llama" || family == "mistral" || family == "qwen3") && !config.attention_bias;
}

std::vector<std::pair<std::string, ModelConfig>> written_settings() {
  std::vector<std::pair<std::string, ModelConfig>> all;
  for (auto& [name, config] : testing::every_setting()) {
    if (is_written(config)) all.emplace_back(name, config);
  }
  return all;
}

std::string config_text(const ModelConfig& config, const std::string& family = "llama") {
  return config_to_json(config, family, "float32", {3, {4, 5}}).dump();
}

TEST(GgufModel, ComesBackBitForBit) {
  std::set<std::string> families;
  for (const auto& [name, config] : written_settings()) {
    SCOPED_TRACE(name);
    const TemporaryFolder folder;
    const auto decoder = make_decoder(config);
    const fs::path path = folder / "m.gguf";
    const std::string family = hf_family(config).name;
    families.insert(family);
    const std::string note =
        save_gguf(*decoder, path, {kGgufF32, family, "small", config_text(config, family), {}});
    EXPECT_EQ(note.find("sliding window") != std::string::npos, config.sliding_window > 0) << note;
    const ModelConfig read = read_model_config(path);
    EXPECT_EQ(read.sliding_window, config.sliding_window);
    EXPECT_EQ(read.layer_types, config.layer_types);
    EXPECT_EQ(read.rope_scaling, config.rope_scaling);
    EXPECT_NEAR(read.rope_factor, config.rope_factor, 1e-5);
    if (config.rope_scaling == "llama3") {
      EXPECT_EQ(read.rope_original_max_position_embeddings,
                config.rope_original_max_position_embeddings);
    }
    EXPECT_EQ(read.tie_word_embeddings, config.tie_word_embeddings);
    Decoder again(read, DenseFactory());
    check_weights(again, path);
    again.allocate(at::kCPU, at::kFloat, at::kFloat);
    load_weights(again, path);
    const at::Tensor tokens = testing::tokens_for(config, 2, 9);
    EXPECT_TRUE(at::equal(again.hidden({}, tokens), decoder->hidden({}, tokens)));
    for (const Parameter& parameter : decoder->arena().parameters()) {
      const Parameter* other = again.arena().find(parameter.name);
      ASSERT_NE(other, nullptr) << parameter.name;
      EXPECT_TRUE(at::equal(again.arena().value(other), decoder->arena().value(&parameter)));
    }
    const nlohmann::json tree = read_config_json(path);
    EXPECT_EQ(tree["model_type"], family);
    EXPECT_EQ(tree["eos_token_id"], nlohmann::json({4, 5}));
    EXPECT_EQ(read_carried(path).eos(), (std::vector<int64_t>{4, 5}));
  }
  EXPECT_EQ(families, (std::set<std::string>{"llama", "mistral", "qwen2", "qwen3"}));
}

TEST(GgufModel, HoldsEachTypeWithinItsRounding) {
  ModelConfig config = testing::small_llama();
  config.hidden_size = 64;
  config.intermediate_size = 96;
  config.head_dim = 16;
  resolve(config, 0, 0);
  const auto decoder = make_decoder(config);
  const std::vector<std::pair<uint32_t, double>> steps = {
      {kGgufF16, 0x1p-11}, {kGgufBF16, 0x1p-8}, {kGgufQ8_0, 0.5 / 127 + 0x1p-11}};
  for (const auto& [type, step] : steps) {
    const TemporaryFolder folder;
    const fs::path path = folder / "m.gguf";
    save_gguf(*decoder, path, {type, "llama", "small", config_text(config), {}});
    const CheckpointReader reader(path);
    for (const Parameter& parameter : decoder->arena().parameters()) {
      const at::Tensor value = decoder->arena().value(&parameter);
      const at::Tensor back = reader.read(parameter.name).to(at::kFloat);
      const double largest = at::max(at::abs(value)).item<double>();
      const double error = at::max(at::abs(back - value)).item<double>();
      EXPECT_LE(error, parameter.shape.size() < 2 ? 0 : step * largest) << parameter.name;
    }
  }
}

TEST(GgufModel, RefusesToWriteWhatItCanNotHold) {
  const TemporaryFolder folder;
  ModelConfig biased = testing::small_llama();
  biased.attention_bias = biased.attention_output_bias = true;
  resolve(biased, 0, 0);
  const fs::path path = folder / "m.gguf";
  expect_error(
      [&] {
        save_gguf(*make_decoder(biased), path, {kGgufF32, "llama", "", config_text(biased), {}});
      },
      {"biases", "GGUF"});
  expect_error(
      [&] {
        save_gguf(*make_decoder(testing::small_gpt2()), path, {kGgufF32, "gpt2", "", "{}", {}});
      },
      {"gpt2", "Llama"});
  int foreign = 0;
  for (const auto& [name, other] : testing::every_setting()) {
    if (hf_family(other).name != "llama" || !has_foreign_rope(other)) continue;
    const std::string text = config_text(other);
    expect_error(
        [&] {
          save_gguf(*make_decoder(other), path, {kGgufF32, "llama", "", text, {}});
        },
        {other.rope_scaling, "Hugging Face folder"});
    ++foreign;
  }
  EXPECT_GE(foreign, 2);
  ModelConfig config = testing::small_llama();
  config.hidden_size = 32;
  resolve(config, 0, 0);
  const auto decoder = make_decoder(config);
  const Parameter* q = decoder->arena().find("model.layers.0.self_attn.q_proj.weight");
  decoder->arena().value(q)[0][0] = std::numeric_limits<float>::quiet_NaN();
  expect_error(
      [&] {
        save_gguf(*decoder, path, {kGgufQ8_0, "llama", "", config_text(config), {}});
      },
      {"blk.0.attn_q.weight", "Q8_0"});
  EXPECT_FALSE(fs::exists(path)) << "what failed leaves nothing";
  EXPECT_TRUE(fs::is_empty(folder.path()));
}

TEST(GgufModel, NamesWhatItDoesNotRead) {
  struct Broken {
    std::function<void(GgufFile&)> change;
    std::vector<std::string> says;
  };
  const auto drop = [](GgufFile& f, const std::string& key) {
    std::erase_if(f.settings,
                  [&](const std::string& setting) { return setting.substr(8, key.size()) == key; });
  };
  const auto reset = [&](const std::string& key, uint32_t value) {
    return [=](GgufFile& f) {
      drop(f, key);
      f.whole(key, value);
    };
  };
  const std::vector<Broken> all = {
      {[&](GgufFile& f) {
         drop(f, "general.architecture");
         f.text("general.architecture", "mamba");
       },
       {"mamba", "llama, qwen2, qwen3"}},
      {[&](GgufFile& f) { drop(f, "llama.block_count"); }, {"llama.block_count"}},
      {[&](GgufFile& f) { drop(f, "llama.attention.layer_norm"); }, {"layer_norm_rms_epsilon"}},
      {reset("llama.attention.head_count", 0), {"head_count"}},
      {reset("llama.block_count", 1000), {"1000 layers"}},
      {reset("llama.expert_count", 8), {"llama.expert_count = 8"}},
      {reset("llama.rope.dimension_count", 2), {"q_proj.weight"}},
      {reset("split.count", 3), {"one of 3 parts"}},
      {[](GgufFile& f) { f.text("llama.rope.scaling.type", "yarn"); }, {"none or linear"}},
      {[](GgufFile& f) {
         f.whole("llama.attention.sliding_window", 3);
         f.list<uint8_t>("llama.attention.sliding_window_pattern", 7, {1, 0});
       },
       {"sliding_window_pattern", "a list of 1 flags"}},
      {[&](GgufFile& f) {
         reset("llama.block_count", 2)(f);
         f.whole("llama.attention.sliding_window", 3);
         f.list<uint8_t>("llama.attention.sliding_window_pattern", 7, {1, 0});
       },
       {"sliding_window_pattern", "the same for all layers"}},
      {[&](GgufFile& f) {
         reset("llama.block_count", 1 << 30)(f);
         f.whole("llama.attention.sliding_window", 3);
         f.whole("llama.attention.sliding_window_pattern", 2);
       },
       {"sliding_window_pattern", "100000 layers"}},
      {[](GgufFile& f) {
         f.floats("rope_freqs.weight", {2}, {3, 1});
       },
       {"rope_freqs.weight"}},
      {[](GgufFile& f) {
         f.floats("blk.0.ffn_gate_exps.weight", {4, 2}, {1, 2, 3, 4, 5, 6, 7, 8});
       },
       {"not part of the model", "blk.0.ffn_gate_exps.weight"}},
      {[](GgufFile& f) { f.tensors.erase(f.tensors.begin() + 5); },
       {"missing", "self_attn.k_proj.weight"}},
      {[](GgufFile& f) { f.tensors.erase(f.tensors.begin()); }, {"token_embd.weight"}},
      {[](GgufFile& f) {
         f.tensors.push_back({"extra", {1}, 24, "x"});
       },
       {"'extra'", "I8"}},
      {[](GgufFile& f) {
         f.tensors[4].sizes = {8, 2};
       },
       {"q_proj.weight", "[2, 8]"}},
      {[](GgufFile& f) {
         f.floats("model.norm.weight", {4}, {1, 1, 1, 1});
       },
       {"model.norm.weight", "too"}},
  };
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    const TemporaryFolder folder;
    GgufFile file = tiny();
    all[i].change(file);
    testing::write_text(folder / "m.gguf", file.bytes());
    const fs::path path = folder / "m.gguf";
    const std::string message = testing::error_of([&] {
      const ModelConfig config = read_model_config(path);
      check_layer_count(config, path);
      Decoder decoder(config, DenseFactory());
      check_weights(decoder, path);
    });
    EXPECT_TRUE(testing::has(message, "m.gguf"));
    for (const std::string& part : all[i].says) EXPECT_TRUE(testing::has(message, part));
  }
}

GgufFile tiny_qwen3() {
  GgufFile file = tiny();
  for (std::string& setting : file.settings) {
    const size_t at = setting.find("llama.");
    if (at == std::string::npos) continue;
    setting.replace(at, 6, "qwen3.");
  }
  file.settings.erase(file.settings.begin());
  file.text("general.architecture", "qwen3");
  return file;
}

TEST(GgufModel, KnowsTheOtherArchitectures) {
  const TemporaryFolder folder;
  testing::write_text(folder / "m.gguf", tiny_qwen3().bytes());
  EXPECT_EQ(read_config_json(folder / "m.gguf")["model_type"], "qwen3");
  const at::Tensor q =
      GgufTensors(folder / "m.gguf").tensor("model.layers.0.self_attn.q_proj.weight");
  EXPECT_TRUE(at::equal(q.select(1, 0), at::arange(4, at::kFloat))) << "its rows are in order";
}

// A list of flags, and a number n, of which every n-th layer does not slide.
TEST(GgufModel, ReadsEveryPatternOfWindows) {
  const std::string full = "full_attention", slides = "sliding_attention";
  struct Case {
    std::vector<uint8_t> flags;
    int period;  // -1: none
    uint32_t window;
    std::vector<std::string> layers;  // empty: all slide
  };
  const std::vector<Case> all = {{{}, -1, 5, {}},
                                 {{}, 0, 5, {}},
                                 {{}, 2, 5, {slides, full, slides, full}},
                                 {{}, 3, 5, {slides, slides, full, slides}},
                                 {{1, 1, 1, 1}, -1, 5, {}},
                                 {{0, 1, 1, 0}, -1, 5, {full, slides, slides, full}},
                                 {{0, 0, 0, 0}, -1, 0, {}},
                                 {{}, 1, 0, {}},
                                 {{}, -1, 16, {}}};  // as long as the context
  for (size_t i = 0; i < all.size(); ++i) {
    SCOPED_TRACE(i);
    const Case& one = all[i];
    const TemporaryFolder folder;
    GgufFile file = tiny_qwen3();
    std::erase_if(file.settings, [](const std::string& setting) {
      return setting.find("qwen3.block_count") != std::string::npos;
    });
    file.whole("qwen3.block_count", 4);
    file.whole("qwen3.attention.sliding_window", one.window == 0 ? 5 : one.window);
    const std::string pattern = "qwen3.attention.sliding_window_pattern";
    if (!one.flags.empty()) file.list<uint8_t>(pattern, 7, one.flags);
    if (one.period >= 0) file.whole(pattern, static_cast<uint32_t>(one.period));
    testing::write_text(folder / "m.gguf", file.bytes());
    const ModelConfig config = read_model_config(folder / "m.gguf");
    EXPECT_EQ(config.sliding_window, one.window == 16 ? 0 : one.window);
    EXPECT_EQ(config.layer_types, one.layers);
  }
}

TEST(GgufRope, FindsTheSettingsOfPublishedModels) {
  const Llama3Rope llama31{500000, 128, 8, 1, 4, 8192}, llama32{500000, 64, 32, 1, 4, 8192};
  for (const Llama3Rope& rope : {llama31, llama32}) {
    const std::vector<float> divisors = llama3_divisors(rope);
    EXPECT_EQ(divisors.front(), 1);
    EXPECT_EQ(divisors.back(), static_cast<float>(rope.factor));
    Llama3Rope known;
    known.theta = rope.theta;
    known.head_dim = rope.head_dim;
    known.original = 0;
    known.factor = 0;
    const auto found = llama3_of_divisors(divisors, known);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->factor, rope.factor);
    EXPECT_EQ(found->original, 8192);
    known.theta = 10000;
    EXPECT_FALSE(llama3_of_divisors(divisors, known));
  }
  EXPECT_FALSE(llama3_of_divisors({}, {}));
  // No pair of positions is stretched by the whole factor here: it can't be found, but told.
  Llama3Rope blended{10000, 64, 8, 1, 4, 131072};
  const std::vector<float> divisors = llama3_divisors(blended);
  EXPECT_TRUE(llama3_of_divisors(divisors, blended));
  blended.factor = 0;
  EXPECT_FALSE(llama3_of_divisors(divisors, blended));
}

}  // namespace gguf_model_test
}  // namespace refract
