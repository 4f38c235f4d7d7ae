#include "studies/alignment.h"

#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "analysis/weights.h"
#include "runs/loaded_model.h"
#include "studies/saved_models.h"
#include "support/errors.h"
#include "support/temporary_folder.h"

namespace refract {
namespace alignment_test {

using testing::error_of;
using testing::save_small_model;
using testing::small_llama;

TEST(AlignOptions, CompareAsManyTokensWhateverTheContext) {
  AlignWords words;
  words.by = "activations";
  EXPECT_EQ(align_options(words, nullptr, 256).windows, 128);
  EXPECT_EQ(align_options(words, nullptr, 12).windows, 2730);
  EXPECT_EQ(align_options(words, nullptr, 100000).windows, 1);
  words.residual = "none";
  words.heads = "whole";
  words.learn = 7;
  words.both = true;
  const AlignOptions options = align_options(words, nullptr, 12);
  EXPECT_EQ(options.context, 12);
  EXPECT_EQ(options.residual, "none");
  EXPECT_EQ(options.heads, "whole");
  EXPECT_EQ(options.learn.steps, 7);
  EXPECT_TRUE(options.learn.both);
}

class AlignAndSave : public ::testing::Test {
 protected:
  AlignAndSave() {
    tokens_ = testing::save_shard(scratch_ / "tokens.bin", config_.vocab_size, 300);
    save_small_model(scratch_ / "a", config_, 1);
    b_ = save_small_model(scratch_ / "b", config_, 2);
    study_.a = (scratch_ / "a").string();
    study_.b = (scratch_ / "b").string();
    study_.out = (scratch_ / "aligned").string();
  }
  const testing::TemporaryFolder scratch_;
  const ModelConfig config_ = small_llama();
  std::shared_ptr<TokenStream> tokens_;
  std::unique_ptr<Decoder> b_;
  AlignStudy study_;
};

TEST_F(AlignAndSave, KeepsTheFunctionAndComesNearer) {
  for (const char* by : {"weights", "activations"}) {
    study_.words.by = by;
    study_.data = {(scratch_ / "tokens.bin").string()};
    study_.out = (scratch_ / by).string();
    const AlignReport report = align_and_save(study_).report;
    EXPECT_GT(report.distance_before, 0) << by;
    LoadedModel aligned = load_model(study_.out, {"train.device=cpu"});
    LoadedModel a = load_model(study_.a, {"train.device=cpu"});
    const double distance = geometry_of(weights_of(*a.model), weights_of(*aligned.model)).distance;
    EXPECT_NEAR(distance, report.distance_after, 1e-5 * distance) << by;
    // Its units stand in another order, so sums are rounded otherwise.
    const double loss = evaluate(*b_, *tokens_, 12).loss;
    EXPECT_NEAR(evaluate(*aligned.model, *tokens_, 12).loss, loss, 1e-4 * loss) << by;
    if (study_.words.by == "weights") {
      EXPECT_LT(report.distance_after, report.distance_before);
    }
  }
}

TEST_F(AlignAndSave, RefusesAFolderThatHoldsAModel) {
  study_.out = study_.a;
  EXPECT_EQ(error_of([&] { align_and_save(study_); }),
            "'" + study_.a +
                "' already holds something; choose another --out for the aligned model, or remove "
                "it first");
}

TEST_F(AlignAndSave, RefusesOtherShapesAndOtherWords) {
  ModelConfig other = config_;
  other.intermediate_size = 16;
  save_small_model(scratch_ / "other", other, 1);
  AlignStudy study = study_;
  study.b = (scratch_ / "other").string();
  const std::string error = error_of([&] { align_and_save(study); });
  EXPECT_NE(error.find("can't be aligned with"), std::string::npos) << error;
  EXPECT_NE(error.find("model.intermediate_size is 12 in the first and 16 in the second"),
            std::string::npos)
      << error;
  study_.words.by = "wieghts";
  EXPECT_EQ(error_of([&] { align_and_save(study_); }),
            "--by wieghts is not one of weights, activations; did you mean weights?");
  EXPECT_FALSE(std::filesystem::exists(study_.out));
}

// GPT-2's form has a head of its own afterwards, in both folders.
TEST_F(AlignAndSave, WritesBothModelsWhereBothChange) {
  const ModelConfig gpt2 = testing::small_gpt2();
  const auto a = save_small_model(scratch_ / "tied-a", gpt2, 1);
  const auto b = save_small_model(scratch_ / "tied-b", gpt2, 2);
  study_.a = (scratch_ / "tied-a").string();
  study_.b = (scratch_ / "tied-b").string();
  study_.data = {(scratch_ / "tokens.bin").string()};
  study_.overrides = {"data.context=8", "train.device=cpu"};
  study_.words.learn = 5;
  for (const bool both : {false, true}) {
    study_.words.both = both;
    study_.out = (scratch_ / (both ? "both" : "one")).string();
    study_.out_a = both ? "" : (scratch_ / "one-first").string();
    const AlignedFolders folders = align_and_save(study_);
    EXPECT_EQ(folders.a, both ? study_.out + "-a" : study_.out_a);
    EXPECT_EQ(folders.report.residual, "orthogonal");
    EXPECT_EQ(folders.report.heads, "invertible");
    for (const auto& [folder, model] : {std::pair(folders.a, a.get()), {study_.out, b.get()}}) {
      LoadedModel aligned = load_model(folder, {"train.device=cpu"});
      EXPECT_FALSE(aligned.config.model.tie_word_embeddings) << folder;
      const double loss = evaluate(*model, *tokens_, 8).loss;
      EXPECT_NEAR(evaluate(*aligned.model, *tokens_, 8).loss, loss, 1e-4 * loss) << folder;
    }
  }
  study_.out = (scratch_ / "again").string();
  study_.out_a = study_.a;
  EXPECT_NE(error_of([&] { align_and_save(study_); }).find("already holds something"),
            std::string::npos);
}

TEST_F(AlignAndSave, RefusesWordsThatDoNotFitTogether) {
  study_.words.both = true;
  EXPECT_EQ(error_of([&] { align_and_save(study_); }),
            "--both moves both ends in learned matching; give it steps with --learn");
  study_.words.learn = -1;
  EXPECT_EQ(error_of([&] { align_and_save(study_); }),
            "--learn -1 is no number of steps from 0 to 10000000");
  study_.words.learn = 1;
  study_.words.rate = 0;
  EXPECT_EQ(error_of([&] { align_and_save(study_); }),
            "--learn-rate 0 must be above 0 and at most 1");
  study_.words.heads = "half";
  EXPECT_NE(error_of([&] { align_and_save(study_); }).find("--heads half is not one of"),
            std::string::npos);
}

}  // namespace alignment_test
}  // namespace refract
