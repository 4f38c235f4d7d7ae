#include "train/checkpoints/checkpoints.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <vector>

#include "core/error.h"
#include "support/errors.h"
#include "support/training.h"

namespace refract {
namespace checkpoints_test {

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

TEST(Checkpoints, AReplacedRunFolderEndsTheRun) {
  RunConfig config = tiny_config("replaced");
  TinyRun run(config);
  run.trainer->run(6);
  fs::rename(config.run.dir, config.run.dir + ".moved");
  EXPECT_TRUE(testing::has(testing::error_of([&] { run.trainer->run(); }), "removed or replaced"));
  EXPECT_FALSE(fs::exists(fs::path(config.run.dir) / "checkpoints"));
  fs::remove_all(config.run.dir + ".moved");
}

TEST(Checkpoints, OnlyOurUnfinishedOnesAreRemoved) {
  RunConfig config = tiny_config("names");
  const fs::path folder = fs::path(config.run.dir) / "checkpoints";
  for (const char* name : {"step-00000007.unfinished", "step-7.unfinished", "mine.unfinished"})
    fs::create_directories(folder / name);
  Checkpoints(config.run.dir).remove_unfinished();
  EXPECT_FALSE(fs::exists(folder / "step-00000007.unfinished"));
  EXPECT_TRUE(fs::exists(folder / "step-7.unfinished"));
  EXPECT_TRUE(fs::exists(folder / "mine.unfinished"));
}

}  // namespace checkpoints_test
}  // namespace refract
