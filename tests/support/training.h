// A tiny model and corpus that train in milliseconds.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <memory>
#include <string>

#include "core/random.h"
#include "model/decoder.h"
#include "runs/run_session.h"
#include "support/temporary_folder.h"
#include "train/trainer.h"
#include "transforms/model_builder.h"

namespace refract {

// 2,000 tokens of 16 kinds in which each follows from the one before, so that there is something to
// learn.
inline std::shared_ptr<TokenStream> tiny_stream(uint64_t seed = 1) {
  RandomStream random(seed, "tokens");
  std::vector<int32_t> tokens = {0};
  for (int i = 1; i < 2000; ++i) {
    tokens.push_back(random.uniform() < 0.8 ? (5 * tokens.back() + 3) % 16
                                            : static_cast<int32_t>(random.below(16)));
  }
  return make_token_stream(tokens);
}

inline RunConfig tiny_config(const std::string& name) {
  static const testing::TemporaryFolder folder;  // of this process, removed when it ends
  RunConfig config;
  config.run.dir = folder.str(name);
  std::filesystem::remove_all(config.run.dir);
  config.data.context = 8;
  config.model.hidden_size = 32;
  config.model.num_hidden_layers = 2;
  config.model.num_attention_heads = 2;
  config.train.batch = 4;
  config.train.steps = 12;
  config.train.device = "cpu";
  config.optimizer.lr = 1e-2;
  config.eval.every = 0;
  config.eval.samples = 0;
  config.checkpoint.every = 0;
  config.checkpoint.keep = 0;
  config.log.every = 3;
  return config;
}

// A run on the tiny corpus, opened as every run is.
struct TinyRun {
  explicit TinyRun(RunConfig config, Observer* observer = nullptr, at::Device device = at::kCPU,
                   World* world = nullptr)
      : session(open(std::move(config), device)),
        model(session.model.get()),
        trainer(std::make_unique<Trainer>(session.config, *model, session.data, session.steps,
                                          observer ? *observer : silent, world)) {}

  Observer silent;
  RunSession session;
  Decoder* model;
  std::unique_ptr<Trainer> trainer;

 private:
  static RunSession open(RunConfig config, at::Device device) {
    resolve(config.model, 16, config.data.context);
    const Dataset data{nullptr, tiny_stream(), tiny_stream(2), "tiny"};
    return open_session(std::move(config), data, "", device, "the test's recipe");
  }
};

}  // namespace refract
