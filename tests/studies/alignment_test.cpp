#include "studies/alignment.h"

#include <gtest/gtest.h>

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
  EXPECT_EQ(align_options("activations", "auto", nullptr, 256).windows, 128);
  EXPECT_EQ(align_options("activations", "auto", nullptr, 12).windows, 2730);
  EXPECT_EQ(align_options("activations", "auto", nullptr, 100000).windows, 1);
  EXPECT_EQ(align_options("activations", "none", nullptr, 12).context, 12);
  EXPECT_EQ(align_options("activations", "none", nullptr, 12).residual, "none");
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
    study_.by = by;
    study_.data = {(scratch_ / "tokens.bin").string()};
    study_.out = (scratch_ / by).string();
    const AlignReport report = align_and_save(study_);
    EXPECT_GT(report.distance_before, 0) << by;
    LoadedModel aligned = load_model(study_.out, {"train.device=cpu"});
    LoadedModel a = load_model(study_.a, {"train.device=cpu"});
    const double distance = geometry_of(weights_of(*a.model), weights_of(*aligned.model)).distance;
    EXPECT_NEAR(distance, report.distance_after, 1e-5 * distance) << by;
    // Its units stand in another order, so sums are rounded otherwise.
    const double loss = evaluate(*b_, *tokens_, 12).loss;
    EXPECT_NEAR(evaluate(*aligned.model, *tokens_, 12).loss, loss, 1e-4 * loss) << by;
    if (study_.by == "weights") {
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
  study_.by = "wieghts";
  EXPECT_EQ(error_of([&] { align_and_save(study_); }),
            "--by wieghts is not one of weights, activations; did you mean weights?");
  EXPECT_FALSE(std::filesystem::exists(study_.out));
}

}  // namespace alignment_test
}  // namespace refract
