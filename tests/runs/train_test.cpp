#include "runs/train.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model_folders.h"
#include "runs/loaded_model.h"

namespace refract {
namespace train_test {

namespace fs = std::filesystem;

// Six steps on a text of its own, kept in the test's folder with all that comes of it.
struct SmallRecipe {
  explicit SmallRecipe(const std::string& name) : folder(empty_folder(name)) {
    std::string text;
    for (int i = 0; i < 200; ++i) text += "one two three " + std::to_string(i * i % 97) + "\n";
    write_file_atomically(folder / "corpus.txt", text);
    path = write_recipe(folder, "[run]\ndir = '" + (folder / "run").string() +
                                    "'\n[data]\npath = '" + (folder / "corpus.txt").string() +
                                    "'\ncache = '" + (folder / "cache").string() + R"('
context = 8
[model]
hidden_size = 16
num_hidden_layers = 1
num_attention_heads = 2
[train]
steps = 6
batch = 4
device = "cpu"
[eval]
samples = 0
[checkpoint]
permanent = [3]
)");
  }
  at::Tensor weights() const {
    return load_model((folder / "run").string(), {}).model->arena().master().clone();
  }
  fs::path folder;
  std::string path;
};

TEST(TrainRecipe, LeavesAWholeRun) {
  const SmallRecipe recipe("train_whole");
  const TrainedRun run = train_recipe(recipe.path, {"optimizer.lr=1e-3"}, false);
  EXPECT_EQ(run.folder, (recipe.folder / "run").string());
  EXPECT_TRUE(run.result.finished);
  EXPECT_EQ(run.result.step, 6);
  ASSERT_TRUE(run.result.evaluation.has_value());
  EXPECT_GT(run.result.evaluation->tokens, 0);
  for (const char* file : {"config.toml", "metrics.jsonl", "log.txt", "report.html"})
    EXPECT_TRUE(fs::exists(fs::path(run.folder) / file)) << file;
  EXPECT_EQ(load_model(run.folder, {}).config.optimizer.lr, 1e-3);
}

TEST(TrainRecipe, AnExistingRunIsRefusedUnlessItIsResumed) {
  const SmallRecipe recipe("train_again");
  train_recipe(recipe.path, {}, false);
  const at::Tensor weights = recipe.weights();
  try {
    train_recipe(recipe.path, {}, false);
    FAIL() << "trained over a run";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("already holds a run"), std::string::npos)
        << error.what();
  }
  fs::remove_all(recipe.folder / "run" / "checkpoints" / "step-00000006");
  EXPECT_FALSE(at::equal(recipe.weights(), weights));  // those of step 3
  EXPECT_EQ(train_recipe(recipe.path, {}, true).result.step, 6);
  EXPECT_TRUE(at::equal(recipe.weights(), weights));
}

}  // namespace train_test
}  // namespace refract
