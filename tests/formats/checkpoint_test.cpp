#include "formats/checkpoint.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "core/error.h"
#include "formats/checkpoint_layout.h"
#include "formats/hf_config.h"
#include "formats/load_weights.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/temporary_folder.h"

namespace refract {
namespace checkpoint_test {

namespace fs = std::filesystem;
using testing::error_of;
using testing::make_decoder;
using testing::TemporaryFolder;

// A layer that keeps a running number and, if asked to, parameters that no family knows.
class OddFactory : public DenseFactory {
 public:
  explicit OddFactory(bool own_parameters) : own_parameters_(own_parameters) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    for (const LinearSpec& member : spec.members) {
      build.buffers.declare(member.name + ".range", at::zeros({2}));
      if (own_parameters_)
        build.arena.declare(
            {member.name + ".lora_A.weight", {2, member.in_features}, Init::normal(1)});
    }
    return DenseFactory::projections(build, spec);
  }

 private:
  bool own_parameters_;
};

// Layers with a scale that a medium learns, of the MLP alone or of all.
class ScaleFactory : public DenseFactory {
 public:
  explicit ScaleFactory(bool all) : all_(all) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    const std::string& name = spec.members.front().name;
    if (all_ || name.find("mlp") != std::string::npos)
      build.arena.declare({name + ".x_log_scale", {1}, Init::normal(1)});
    return DenseFactory::projections(build, spec);
  }

 private:
  bool all_;
};

void expect_equal(Decoder& a, Decoder& b) {
  ASSERT_EQ(a.arena().layout(), b.arena().layout());
  EXPECT_TRUE(at::equal(a.arena().master(), b.arena().master()));
  EXPECT_TRUE(at::equal(a.arena().compute(), b.arena().compute()));
  for (const BufferStore::Buffer& buffer : a.buffers().all()) {
    EXPECT_TRUE(at::equal(buffer.tensor, b.buffers().find(buffer.name)->tensor)) << buffer.name;
  }
}

std::string type_in(const fs::path& folder) { return read_config_json(folder)["model_type"]; }

TEST(CheckpointTest, BuffersOfOldVersionsMeanNothing) {
  for (const char* name :
       {"transformer.h.0.attn.bias", "h.11.attn.masked_bias", "transformer.h.3.attn.masked_bias"})
    EXPECT_TRUE(our_names("gpt2", name).empty()) << name;
  for (const char* name :
       {"model.layers.0.self_attn.rotary_emb.inv_freq", "model.rotary_emb.inv_freq",
        "rotary_emb.inv_freq", "layers.0.self_attn.rotary_emb.cos_cached",
        "model.layers.0.self_attn.rotary_emb.sin_cached", "model.rotary_emb.original_inv_freq"})
    EXPECT_TRUE(our_names("llama", name).empty()) << name;
  // Much alike, but parameters.
  for (const char* name : {"model.layers.0.self_attn.q_proj.bias", "my_rotary_emb.inv_freq"})
    EXPECT_EQ(our_names("llama", name).size(), 1u) << name;
  EXPECT_EQ(our_names("gpt2", "h.0.attn.c_proj.bias").size(), 1u);
}

TEST(CheckpointTest, EverySettingIsSavedAndLoaded) {
  for (const auto& [name, config] : testing::every_setting()) {
    const TemporaryFolder folder;
    auto saved = make_decoder(config, at::kBFloat16);
    save_model(*saved, folder / "m");
    const std::string family = hf_family(config).name;
    EXPECT_EQ(type_in(folder / "m"), family.empty() ? "refract" : family) << name;
    ModelConfig read = read_model_config(folder / "m");
    auto loaded = make_decoder(read, at::kBFloat16, DenseFactory(), 2);
    EXPECT_FALSE(at::equal(saved->arena().master(), loaded->arena().master()));
    load_weights(*loaded, folder / "m");
    expect_equal(*saved, *loaded);
    save_model(*saved, folder / "own", {.max_shard_bytes = 500, .format = "refract"});
    EXPECT_TRUE(fs::exists(folder / "own" / "model.safetensors.index.json"));
    auto again = make_decoder(read_model_config(folder / "own"), at::kBFloat16, DenseFactory(), 2);
    load_weights(*again, folder / "own");
    expect_equal(*saved, *again);
  }
}

TEST(CheckpointTest, BuffersTravelWithEveryFormat) {
  for (const char* format : {"gpt2", "refract"}) {
    const TemporaryFolder folder;
    auto saved = make_decoder(testing::small_gpt2(), at::kFloat, OddFactory(false));
    double value = 1;
    for (BufferStore::Buffer& buffer : saved->buffers().all()) buffer.tensor.fill_(value++);
    save_model(*saved, folder / "m", {.format = format});
    EXPECT_EQ(fs::exists(folder / "m" / "buffers.safetensors"), format == std::string("gpt2"));
    auto loaded = make_decoder(testing::small_gpt2(), at::kFloat, OddFactory(false), 2);
    load_weights(*loaded, folder / "m");
    expect_equal(*saved, *loaded);
  }
}

TEST(CheckpointTest, ADenseCheckpointLeavesBuffersAlone) {
  const TemporaryFolder folder;
  auto dense = make_decoder(testing::small_gpt2());
  save_model(*dense, folder / "m");
  auto odd = make_decoder(testing::small_gpt2(), at::kFloat, OddFactory(false), 2);
  for (BufferStore::Buffer& buffer : odd->buffers().all()) buffer.tensor.fill_(5);
  load_weights(*odd, folder / "m");
  EXPECT_EQ(odd->buffers().all()[0].tensor[0].item<float>(), 5);
  // And the other way: buffers that the model does not have are an error.
  save_model(*odd, folder / "odd");
  EXPECT_NE(error_of([&] { load_weights(*dense, folder / "odd"); }).find("mlp.down_proj.range"),
            std::string::npos);
}

TEST(CheckpointTest, ScalesStartAtZeroOnlyWhereAFolderHasNone) {
  const TemporaryFolder folder;
  save_model(*make_decoder(testing::small_llama()), folder / "dense");
  auto scaled = make_decoder(testing::small_llama(), at::kFloat, ScaleFactory(true), 2);
  load_weights(*scaled, folder / "dense");
  int64_t scales = 0;
  for (const Parameter& parameter : scaled->arena().parameters()) {
    if (!parameter.name.ends_with("_log_scale")) continue;
    ++scales;
    EXPECT_EQ(scaled->arena().value(&parameter).item<float>(), 0) << parameter.name;
  }
  EXPECT_GT(scales, 0);
  save_model(*make_decoder(testing::small_llama(), at::kFloat, ScaleFactory(false)),
             folder / "some");
  const std::string message = error_of([&] { load_weights(*scaled, folder / "some"); });
  EXPECT_NE(message.find("missing: 'model.layers.0.self_attn"), std::string::npos) << message;
  EXPECT_NE(message.find("x_log_scale' [1]"), std::string::npos) << message;
}

TEST(CheckpointTest, ParametersWithoutAPlaceAreRefusedOrKeptInOurFormat) {
  const TemporaryFolder folder;
  auto odd = make_decoder(testing::small_gpt2(), at::kFloat, OddFactory(true));
  const std::string message = error_of([&] { save_model(*odd, folder / "m", {.format = "gpt2"}); });
  EXPECT_NE(message.find("lora_A.weight"), std::string::npos) << message;
  EXPECT_FALSE(fs::exists(folder / "m"));
  save_model(*odd, folder / "m");
  EXPECT_EQ(type_in(folder / "m"), "refract");
  auto loaded = make_decoder(testing::small_gpt2(), at::kFloat, OddFactory(true), 2);
  load_weights(*loaded, folder / "m");
  expect_equal(*odd, *loaded);
}

TEST(CheckpointTest, AnotherFamilysFormatIsRefusedWithTheReason) {
  const TemporaryFolder folder;
  auto llama = make_decoder(testing::small_llama());
  EXPECT_NE(error_of([&] { save_model(*llama, folder / "m", {.format = "gpt2"}); }).find("llama"),
            std::string::npos);
  ModelConfig neither = testing::small_gpt2();
  neither.norm = "rmsnorm";
  auto decoder = make_decoder(neither);
  EXPECT_NE(why_not(*decoder, "gpt2").find("rmsnorm"), std::string::npos);
  EXPECT_NE(error_of([&] { save_model(*decoder, folder / "m", {.format = "onnx"}); }).find("onnx"),
            std::string::npos);
}

TEST(CheckpointTest, ANarrowerFileIsWidenedExactly) {
  const TemporaryFolder folder;
  auto saved = make_decoder(testing::small_llama());
  for (at::ScalarType dtype : {at::kBFloat16, at::kHalf, at::kFloat}) {
    save_model(*saved, folder / "m", {.dtype = dtype});
    auto loaded = make_decoder(testing::small_llama(), at::kFloat, DenseFactory(), 2);
    load_weights(*loaded, folder / "m");
    EXPECT_TRUE(
        at::equal(loaded->arena().master(), saved->arena().master().to(dtype).to(at::kFloat)));
  }
}

TEST(CheckpointTest, AModelThatDoesNotFitIsLeftAlone) {
  const TemporaryFolder folder;
  save_model(*make_decoder(testing::small_gpt2()), folder / "m");
  ModelConfig wider = testing::small_gpt2();
  wider.vocab_size = 14;
  wider.num_hidden_layers = 3;
  auto decoder = make_decoder(wider);
  const at::Tensor before = decoder->arena().master().clone();
  const std::string message = error_of([&] { load_weights(*decoder, folder / "m"); });
  EXPECT_NE(message.find("'transformer.wte.weight' F32 [13, 8]"), std::string::npos) << message;
  EXPECT_NE(message.find("[14, 8]"), std::string::npos) << message;
  EXPECT_NE(message.find("model.layers.2.input_layernorm.weight"), std::string::npos) << message;
  EXPECT_TRUE(at::equal(before, decoder->arena().master()));
}

TEST(CheckpointTest, AReaderGivesTheFusedProjectionApart) {
  const TemporaryFolder folder;
  auto saved = make_decoder(testing::small_gpt2());
  save_model(*saved, folder / "m");
  const CheckpointReader reader(folder / "m");
  EXPECT_EQ(reader.names().size(), saved->arena().parameters().size());
  for (const Parameter& p : saved->arena().parameters()) {
    EXPECT_EQ(reader.shape(p.name), p.shape) << p.name;
    EXPECT_TRUE(at::equal(reader.read(p.name), saved->arena().value(&p))) << p.name;
  }
  EXPECT_NE(error_of([&] { reader.read("absent"); }).find("'absent'"), std::string::npos);
}

}  // namespace checkpoint_test
}  // namespace refract
