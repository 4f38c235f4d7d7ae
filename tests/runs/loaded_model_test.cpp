#include "runs/loaded_model.h"

#include <ATen/ops/equal.h>
#include <gtest/gtest.h>

#include "core/error.h"
#include "model_folders.h"

namespace refract {
namespace loaded_model_test {

namespace fs = std::filesystem;

// A corpus of 2,000 tokens as raw 16-bit numbers; not the one that the run is trained on.
std::string write_corpus(const fs::path& folder) {
  const auto stream = tiny_stream(3);
  std::vector<int32_t> tokens(static_cast<size_t>(stream->size()));
  stream->read(0, tokens);
  const std::vector<uint16_t> halves(tokens.begin(), tokens.end());
  const fs::path path = folder / "corpus.bin";
  write_file_atomically(path, {reinterpret_cast<const char*>(halves.data()), halves.size() * 2});
  return path.string();
}

TEST(LoadedModel, ARunIsLoadedBitForBit) {
  RunConfig config = tiny_config("loaded_run");
  config.transform =
      R"([{"match": "model\\.layers\\.1\\.mlp\\..*", "kind": "low_rank", "rank": 4}])";
  TinyRun run(config);
  run.trainer->run();
  const LoadedModel loaded = load_model(config.run.dir, {"train.batch=2"});
  EXPECT_EQ(loaded.folder, fs::path(config.run.dir) / "checkpoints" / "step-00000012");
  EXPECT_EQ(loaded.config.data.context, 8);
  EXPECT_EQ(loaded.config.optimizer.lr, 1e-2);
  EXPECT_EQ(loaded.config.train.batch, 2);
  EXPECT_EQ(loaded.started_from, "random");
  EXPECT_EQ(loaded.tokenizer, nullptr);
  EXPECT_FALSE(loaded.rules.empty());
  EXPECT_TRUE(at::equal(loaded.model->arena().master(), run.model->arena().master()));
}

TEST(LoadedModel, AFolderComesWithItsTokenizer) {
  const fs::path folder = byte_model_folder("loaded_folder");
  const LoadedModel loaded = load_model(folder.string(), {"train.device=cpu"});
  ASSERT_NE(loaded.tokenizer, nullptr);
  EXPECT_EQ(loaded.tokenizer->vocab_size(), 257);
  EXPECT_EQ(loaded.model->config().hidden_size, 8);
  EXPECT_TRUE(loaded.rules.empty());
}

// The same weights, tokens and windows on the same device: not a bit may differ.
TEST(LoadedModel, IsEvaluatedOnACorpusAsItsRunWouldBe) {
  const RunConfig config = tiny_config("loaded_evaluated");
  TinyRun run(config);
  run.trainer->run();
  const std::string corpus = write_corpus(config.run.dir);
  const ModelEvaluation whole = evaluate_model(config.run.dir, {}, {.corpus = {corpus}});
  const Evaluation& found = whole.result;
  EXPECT_EQ(whole.corpus, corpus);
  EXPECT_EQ(whole.context, 8);
  const Evaluation expected = evaluate(*run.model, *tiny_stream(3), 8);
  EXPECT_EQ(found.tokens, 1999);
  EXPECT_EQ(found.loss, expected.loss);
  EXPECT_EQ(found.accuracy, expected.accuracy);
}

TEST(LoadedModel, WithoutACorpusItNeedsAValidationSplit) {
  const RunConfig config = tiny_config("loaded_without");
  TinyRun run(config);
  run.trainer->run();
  const std::string corpus = write_corpus(config.run.dir);
  const std::string path = "data.path=['" + corpus + "']";
  const ModelEvaluation split =
      evaluate_model(config.run.dir, {path, "data.validation_fraction=0.25"}, {});
  EXPECT_EQ(split.result.tokens, 499);
  EXPECT_EQ(split.corpus, "the validation split of " + corpus);
  try {
    evaluate_model(config.run.dir, {path, "data.validation_fraction=0"}, {});
    FAIL() << "evaluated on nothing";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::kUsage);
    EXPECT_NE(std::string(error.what()).find("has no corpus to evaluate on"), std::string::npos)
        << error.what();
  }
}

}  // namespace loaded_model_test
}  // namespace refract
