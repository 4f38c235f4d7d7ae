// train.save = "async": the bytes of a save that is waited for, while training goes on.
#include "train/checkpoints/background_save.h"

#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <future>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "core/files.h"
#include "support/errors.h"
#include "support/small_models.h"
#include "support/training.h"

namespace refract {
namespace background_save_test {

namespace fs = std::filesystem;
using testing::has;

using Files = std::map<std::string, std::string>;

// Every file of every checkpoint of the run, without the settings.
Files files_of(const RunConfig& config) {
  Files files;
  for (const auto& entry : fs::recursive_directory_iterator(config.run.dir)) {
    if (entry.is_regular_file() && entry.path().filename() != "config.toml")
      files[fs::relative(entry.path(), config.run.dir).string()] = read_file(entry.path());
  }
  return files;
}

class Told : public Observer {
 public:
  void on_checkpoint(int64_t step, const fs::path& folder) override {
    EXPECT_TRUE(fs::exists(folder / "train_state.safetensors"));
    steps.push_back(step);
  }
  std::vector<int64_t> steps;
};

Files files_after(RunConfig config, const std::string& save) {
  config.train.save = save;
  fs::remove_all(config.run.dir);
  Told told;
  TinyRun run(config, &told);
  run.trainer->run();
  EXPECT_EQ(told.steps, (std::vector<int64_t>{3, 6, 9, 12})) << save;
  return files_of(config);
}

TEST(BackgroundSave, WritesTheBytesOfASaveThatIsWaitedFor) {
  const std::string optical =
      R"([{"match": ".*_proj", "kind": "lora", "r": 4, "over": "optical"}])";
  const std::string low_rank = R"([{"match": ".*\\.1\\.mlp\\..*", "kind": "low_rank", "rank": 8}])";
  for (const auto& [transform, guided] :
       {std::pair(std::string(), false), std::pair(optical, false), std::pair(low_rank, true)}) {
    RunConfig config = tiny_config("background");
    config.checkpoint.every = 3;
    config.transform = transform;
    config.train.precision = transform.empty() ? "fp32" : "bf16";
    config.optimizer.name = guided ? "sgd" : "adamw";
    if (guided) config.self_guided.mode = "fixedstep";
    config.self_guided.ratio = 0.5;  // the guides go in the middle of the run
    const Files waited = files_after(config, "sync"), behind = files_after(config, "async");
    EXPECT_EQ(waited.size(), behind.size());
    EXPECT_GE(waited.size(), 4U * 3U);
    for (const auto& [name, bytes] : waited)
      EXPECT_TRUE(behind.contains(name) && behind.at(name) == bytes) << name << " " << transform;
  }
}

// What is frozen lies in another place of the arena, and in bf16 has no masters.
TEST(BackgroundSave, WritesWhatIsFrozen) {
  RunConfig config = tiny_config("background_part");
  config.checkpoint.every = 3;
  config.train.precision = "bf16";
  config.only = R"(model\.layers\.1\..*)";
  const Files waited = files_after(config, "sync"), behind = files_after(config, "async");
  EXPECT_GE(waited.size(), 4U * 3U);
  EXPECT_EQ(waited, behind);
}

TEST(BackgroundSave, KeepsWhatItWritesFromTheStepsThatFollow) {
  const ModelConfig config = testing::small_gpt2();
  const auto model = testing::make_decoder(config);
  auto copy = std::make_unique<Decoder>(config, DenseFactory());
  copy->allocate(at::kCPU, at::kFloat);
  const at::Tensor before = model->arena().master().clone();
  OptimizerState state;
  state.exp_avg = at::ones({5});
  BackgroundSave save(std::move(copy));
  EXPECT_FALSE(save.take(true));
  std::promise<void> go;
  at::Tensor written, moment;
  save.start(7, *model, state, [&](Decoder& held, const OptimizerState& kept) {
    go.get_future().wait();
    written = held.arena().master().clone();
    moment = kept.exp_avg.clone();
    return fs::path("folder");
  });
  // Training goes on while the thread waits.
  model->arena().master().zero_();
  state.exp_avg.zero_();
  EXPECT_FALSE(save.take(false));
  go.set_value();
  const auto saved = save.take(true);
  ASSERT_TRUE(saved);
  EXPECT_EQ(saved->step, 7);
  EXPECT_EQ(saved->folder, "folder");
  EXPECT_TRUE(at::equal(written, before));
  EXPECT_EQ(moment.sum().item<double>(), 5);
  EXPECT_FALSE(save.take(true));
}

TEST(BackgroundSave, AFailureEndsTheRun) {
  RunConfig config = tiny_config("background_failure");
  config.train.save = "async";
  config.checkpoint.every = 3;
  TinyRun run(config);
  // A file stands where checkpoints would go.
  testing::write_text(fs::path(config.run.dir) / "checkpoints", "");
  EXPECT_TRUE(has(testing::error_of([&] { run.trainer->run(); }), "can't save the checkpoint"));
}

}  // namespace background_save_test
}  // namespace refract
