#include "train/checkpoints.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "support/training.h"

namespace refract {
namespace {

namespace fs = std::filesystem;

TEST(Checkpoints, KeepsTheNewestAndThePermanent) {
  RunConfig config = tiny_config("keep");
  config.checkpoint.every = 2;
  config.checkpoint.keep = 2;
  config.checkpoint.permanent = {3};
  TinyRun run(config);
  run.trainer->run();
  EXPECT_EQ(Checkpoints(config.run.dir).steps(), (std::vector<int64_t>{3, 10, 12}));
}

TEST(Checkpoints, UnfinishedOnesAreNeverRead) {
  RunConfig config = tiny_config("unfinished");
  TinyRun run(config);
  run.trainer->run();
  const Checkpoints checkpoints(config.run.dir);
  fs::create_directories(checkpoints.path(99).string() + ".unfinished");
  fs::create_directories(checkpoints.path(50));  // has no train state
  EXPECT_EQ(checkpoints.steps(), (std::vector<int64_t>{12}));
  checkpoints.prune(2, {});
  EXPECT_FALSE(fs::exists(checkpoints.path(99).string() + ".unfinished"));
}

TEST(Checkpoints, AnotherModelIsRefused) {
  RunConfig config = tiny_config("other");
  TinyRun run(config);
  run.trainer->run();
  config.model.hidden_size = 64;
  TinyRun wider(config);
  EXPECT_THROW(wider.trainer->resume(), Error);
}

}  // namespace
}  // namespace refract
