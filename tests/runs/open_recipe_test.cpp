#include "runs/open_recipe.h"

#include <gtest/gtest.h>

#include "core/error.h"
#include "model_folders.h"

namespace refract {
namespace recipe_test {

namespace fs = std::filesystem;

TEST(Recipe, StartsFromRandomWeightsUnlessItSaysOtherwise) {
  const fs::path folder = empty_folder("recipe_random");
  const std::string path = write_recipe(folder, "[train]\nsteps = 3\n");
  const Recipe recipe = open_recipe(path, {"train.batch=5"});
  EXPECT_TRUE(recipe.source.empty());
  EXPECT_FALSE(recipe.names_tokenizer);
  EXPECT_EQ(recipe.config.train.steps, 3);
  EXPECT_EQ(recipe.config.train.batch, 5);
  EXPECT_EQ(recipe.config.model.hidden_size, ModelConfig().hidden_size);
}

TEST(Recipe, TakesTheModelOfTheFolderItStartsFrom) {
  const fs::path model = byte_model_folder("recipe_source"), folder = empty_folder("recipe_from");
  const std::string path =
      write_recipe(folder, "[init]\nfrom = '" + model.string() + "'\n[model]\ndropout = 0.25\n");
  const Recipe recipe = open_recipe(path, {});
  EXPECT_EQ(recipe.source, model);
  EXPECT_EQ(recipe.config.init.from, model.string());
  EXPECT_EQ(recipe.config.model.hidden_size, 8);
  EXPECT_EQ(recipe.config.model.vocab_size, 257);
  EXPECT_EQ(recipe.config.model.max_position_embeddings, 12);
  EXPECT_EQ(recipe.config.model.dropout, 0.25);  // the recipe's own
  EXPECT_FALSE(recipe.names_tokenizer);
  EXPECT_TRUE(open_recipe(path, {"data.tokenizer=chars"}).names_tokenizer);
}

TEST(Recipe, ASourceThatIsNotThereIsNamed) {
  const fs::path folder = empty_folder("recipe_missing");
  const std::string missing = (folder / "missing").string();
  const std::string path = write_recipe(folder, "[init]\nfrom = '" + missing + "'\n");
  try {
    open_recipe(path, {});
    FAIL() << "opened a folder that is not there";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(missing), std::string::npos) << error.what();
  }
}

TEST(Recipe, ResolvesTheVocabularyFromTheTokenizer) {
  const fs::path folder = empty_folder("recipe_resolved");
  const std::string path =
      write_recipe(folder, "[data]\ntokenizer = 'bytes'\ncontext = 24\n[train]\nsteps = 3\n");
  const ModelConfig model = open_resolved_recipe(path, {}).config.model;
  EXPECT_EQ(model.vocab_size, 257);
  EXPECT_EQ(model.max_position_embeddings, 24);
  EXPECT_EQ(model.intermediate_size, 4 * model.hidden_size);
  EXPECT_EQ(open_resolved_recipe(path, {"model.vocab_size=300"}).config.model.vocab_size, 300);
}

}  // namespace recipe_test
}  // namespace refract
