#include "runs/export_model.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model_folders.h"
#include "runs/loaded_model.h"

namespace refract {
namespace export_model_test {

namespace fs = std::filesystem;

TEST(ExportModel, WritesTheSameWeightsWithTheTokenizer) {
  const fs::path source = byte_model_folder("export_source");
  const fs::path out = empty_folder("export_out") / "model";
  const ExportedModel exported = export_model(source.string(), out, {});
  EXPECT_EQ(exported.from, source);
  EXPECT_EQ(exported.family, "gpt2");
  const LoadedModel before = load_model(source.string(), {"train.device=cpu"}),
                    after = load_model(out.string(), {"train.device=cpu"});
  ASSERT_NE(after.tokenizer, nullptr);
  EXPECT_EQ(after.tokenizer->vocab_size(), 257);
  EXPECT_TRUE(at::equal(before.model->arena().master(), after.model->arena().master()));
}

TEST(ExportModel, RefusesAFolderThatHoldsAModel) {
  const fs::path source = byte_model_folder("export_again");
  try {
    export_model(source.string(), source, {});
    FAIL() << "wrote over a model";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("already holds something"), std::string::npos)
        << error.what();
  }
}

TEST(ExportModel, AdaptersNeedAModelToBePutOn) {
  const fs::path source = byte_model_folder("export_adapter");
  const fs::path out = empty_folder("export_adapter_out");
  ExportOptions options;
  options.adapter = true;
  try {
    export_model(source.string(), out, options);
    FAIL() << "wrote adapters of nothing";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("started from random weights"), std::string::npos)
        << error.what();
  }
}

}  // namespace export_model_test
}  // namespace refract
