// refract bench kernel, refract bench mlp: linear layers of every kind against dense ones.
#include "bench/layer_bench.h"
#include "cli/bench/bench_options.h"
#include "core/system/command_line.h"

namespace refract {
namespace {

class BenchMlpCommand : public Command {
 public:
  std::string name() const override { return "bench mlp"; }
  std::string summary() const override {
    return "Time a feed-forward (two layers and GELU) of every kind and compare it with the dense "
           "one";
  }
  std::string example() const override {
    return "refract bench mlp --widths 768 --tokens 16,512 --kinds lora";
  }
  void declare(CommandLine& line) override {
    line.option("--widths", options_.widths,
                "widths C, with F = 4 C; default: 768, on CUDA 768 to 6144");
    line.option("--tokens", options_.tokens,
                "tokens in a call; default: 16,512, on CUDA 16 to 32768");
    line.option("--shares", options_.shares,
                "percent of the dense parameters to size kinds to: 63, 32");
    line.option("--kinds", options_.kinds,
                "a kind to time; may be given several times; default: all");
    refract::declare(line, options_.settings);
  }
  int run() override {
    bench_mlp(options_).print(options_.settings.json);
    return 0;
  }

 private:
  MlpOptions options_;
};

class BenchKernelCommand : public Command {
 public:
  std::string name() const override { return "bench kernel"; }
  std::string summary() const override {
    return "Time structured layers at the shapes of the reference's kernel benchmark";
  }
  std::string example() const override { return "refract bench kernel --shapes 1 --tokens 256"; }
  void declare(CommandLine& line) override {
    line.option("--shapes", options_.shapes, "how many shapes of each kind; 0: 1, on CUDA all 5");
    line.option("--tokens", options_.tokens, "tokens in a call; 0: the shape's own, on a CPU 256");
    line.option("--kinds", options_.kinds,
                "a kind to time; may be given several times; default: all");
    refract::declare(line, options_.settings);
  }
  int run() override {
    bench_kernel(options_).print(options_.settings.json);
    return 0;
  }

 private:
  KernelOptions options_;
};

}  // namespace

std::unique_ptr<Command> make_bench_mlp_command() { return std::make_unique<BenchMlpCommand>(); }
std::unique_ptr<Command> make_bench_kernel_command() {
  return std::make_unique<BenchKernelCommand>();
}

}  // namespace refract
