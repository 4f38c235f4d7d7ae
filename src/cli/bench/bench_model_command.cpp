// refract bench train, refract bench decode: whole models, of a recipe or of a run.
#include "bench/decoding_bench.h"
#include "bench/training_bench.h"
#include "cli/bench/bench_options.h"
#include "core/system/command_line.h"

namespace refract {
namespace {

class BenchTrainCommand : public Command {
 public:
  std::string name() const override { return "bench train"; }
  std::string summary() const override {
    return "Time a recipe's training step, and a forward pass of its context (prefill)";
  }
  std::string example() const override {
    return "refract bench train recipes/demo.toml --batches 4 --contexts 64,128";
  }
  void declare(CommandLine& line) override {
    line.positional("source", options_.source, "a recipe (.toml), or a run");
    line.option("--batches", options_.batches, "sequences per step; default: the recipe's");
    line.option("--contexts", options_.contexts, "tokens per sequence; default: the recipe's");
    line.option("--steps", options_.steps, "steps to time after the warm-up");
    refract::declare(line, options_.settings);
  }
  int run() override {
    bench_training(options_).print(options_.settings.json);
    return 0;
  }

 private:
  TrainingOptions options_;
};

class BenchDecodeCommand : public Command {
 public:
  std::string name() const override { return "bench decode"; }
  std::string summary() const override {
    return "Time the decoding of a recipe's or a run's model, at given batches or the largest";
  }
  std::string example() const override {
    return "refract bench decode recipes/demo.toml --batches 1,8 --generate 32";
  }
  void declare(CommandLine& line) override {
    line.positional("source", options_.source, "a recipe (.toml), or a run");
    line.option("--batches", options_.batches,
                "sequences per batch, or \"max\": as many as fit on the GPU; default: 1,16, on "
                "CUDA 1,64,max");
    line.option("--prompt", options_.prompt, "tokens per prompt");
    line.option("--generate", options_.generate, "number of tokens to generate");
    line.option("--repeats", options_.repeats, "runs to time; the median counts");
    refract::declare(line, options_.settings);
  }
  int run() override {
    bench_decoding(options_).print(options_.settings.json);
    return 0;
  }

 private:
  DecodingOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_bench_train_command() {
  return std::make_unique<BenchTrainCommand>();
}
std::unique_ptr<Command> make_bench_decode_command() {
  return std::make_unique<BenchDecodeCommand>();
}

}  // namespace refract
