// Linear layers of every kind against dense ones, forward alone and with the backward pass.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "bench/report.h"
#include "bench/settings.h"

namespace refract {

// Lists are written as on the command line: "768,1024".
struct MlpOptions {
  BenchSettings settings;
  std::string widths;              // C, with F = 4 C; empty: 768, on CUDA 768 to 6144
  std::string tokens;              // in a call; empty: 16,512, on CUDA 16 to 32768
  std::string shares = "63,32";    // percent of the dense parameters to size kinds to
  std::vector<std::string> kinds;  // empty: all
};
// A feed-forward (two layers and GELU) of every kind.
BenchReport bench_mlp(const MlpOptions& options);

struct KernelOptions {
  BenchSettings settings;
  int64_t shapes = 0;              // of each kind, the first this many; 0: 1, on CUDA all 5
  int64_t tokens = 0;              // in a call; 0: the shape's own, on a CPU 256
  std::vector<std::string> kinds;  // empty: all
};
// Structured layers at the shapes of the reference's kernel benchmark (StructuredFFN,
// bench_kernel.py), in its order.
BenchReport bench_kernel(const KernelOptions& options);

}  // namespace refract
