#include "runs/model_folder.h"

#include <gtest/gtest.h>

#include "model_folders.h"

namespace refract {
namespace model_folder_test {

namespace fs = std::filesystem;

TEST(ModelFolder, OpensTheTokenizerThatLiesInIt) {
  EXPECT_EQ(folder_tokenizer(empty_folder("folder_bare")), nullptr);
  const auto tokenizer = folder_tokenizer(byte_model_folder("folder_bytes"));
  ASSERT_NE(tokenizer, nullptr);
  EXPECT_EQ(tokenizer->vocab_size(), 257);
}

TEST(ModelFolder, SettingsComeFromItsTrainingAndTheModelFromItsConfig) {
  const fs::path folder = byte_model_folder("folder_settings");
  // Without settings of a run: defaults, and the model's whole length.
  EXPECT_EQ(folder_config(folder, {}, "the test").data.context, 12);
  EXPECT_EQ(folder_origin(folder), "random");
  write_file_atomically(folder / "config.toml",
                        "[data]\ncontext = 7\n[init]\nfrom = 'some/model'\n"
                        "[model]\nhidden_size = 999\n[train]\nbatch = 3\n");
  const RunConfig config = folder_config(folder, {}, "the test");
  EXPECT_EQ(config.data.context, 7);
  EXPECT_EQ(config.train.batch, 3);
  EXPECT_EQ(config.model.hidden_size, 8);
  EXPECT_EQ(config.init.from, "random");
  EXPECT_EQ(folder_config(folder, {"train.batch=6"}, "the test").train.batch, 6);
  EXPECT_EQ(folder_origin(folder), "some/model");
}

TEST(ModelFolder, ThresholdsLieBesideTheCheckpointsOfARun) {
  EXPECT_EQ(premerge_file("run/checkpoints/step-00000010"), fs::path("run/premerge.toml"));
  EXPECT_EQ(premerge_file("model"), fs::path("model/premerge.toml"));
}

TEST(ModelFolder, PremergeFollowsTheSettings) {
  RunConfig config;
  config.decode.premerge = "off";
  config.train.precision = "bf16";
  const PremergeSettings settings = premerge_settings(config, "", at::kCPU);
  EXPECT_EQ(settings.mode, "off");
  EXPECT_EQ(settings.precision, "bf16");
  EXPECT_EQ(settings.default_tokens, default_premerge_tokens(false));
  EXPECT_TRUE(settings.table.all().empty());
}

}  // namespace model_folder_test
}  // namespace refract
