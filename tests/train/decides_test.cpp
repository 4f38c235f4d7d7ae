// What each setting of a run decides.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "core/config.h"
#include "train/run_config.h"

namespace refract {
namespace decides_test {

std::set<std::string> deciding(Decides what) {
  Fields fields;
  RunConfig config;
  describe(fields, config);
  std::set<std::string> keys;
  for (const Field& field : fields.all()) {
    if (field.decides == what) keys.insert(field.key);
  }
  return keys;
}

// A later call of an analysis may change these. It must compute the same bits as the first one, so
// the device and the threads are not among them.
TEST(Decides, NothingAreFoldersReportsAndCheckpoints) {
  EXPECT_EQ(
      deciding(Decides::kNothing),
      (std::set<std::string>{"run.dir", "data.cache", "eval.every", "eval.batches", "eval.samples",
                             "eval.sample_tokens", "eval.prompt", "eval.temperature",
                             "decode.premerge", "checkpoint.every", "checkpoint.keep",
                             "checkpoint.permanent", "log.every", "train.minutes",
                             "train.recompute", "train.save", "train.timeout", "train.verify"}));
}

// All of [model], but for what only training and the start know.
TEST(Decides, TheFunctionIsTheModelAndItsRules) {
  Fields fields;
  ModelConfig model;
  describe(fields, model);
  std::set<std::string> expected = {"transform"};
  for (const Field& field : fields.all()) expected.insert(field.key);
  for (const char* other : {"model.preset", "model.dropout", "model.embedding_dropout",
                            "model.attention_dropout", "init.scheme", "model.initializer_range",
                            "model.position_initializer_range", "model.scaled_residual_init"}) {
    EXPECT_EQ(expected.erase(other), 1U) << other;
  }
  EXPECT_EQ(deciding(Decides::kFunction), expected);
}

TEST(Decides, TheOutcomeIsTheRest) {
  const std::set<std::string> outcome = deciding(Decides::kOutcome);
  for (const char* key :
       {"run.seed", "run.noise_seed", "data.path", "data.context", "init.from", "model.dropout",
        "model.initializer_range", "optimizer.lr", "schedule.warmup", "train.batch",
        "train.micro_batch", "train.precision", "train.device", "train.threads", "train.shard",
        "train.reduction_groups", "self_guided.mode"}) {
    EXPECT_TRUE(outcome.contains(key)) << key;
  }
}

}  // namespace decides_test
}  // namespace refract
