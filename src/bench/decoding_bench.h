// Decoding token by token, at given batches or the largest that fits.
#pragma once
#include <cstdint>
#include <string>

#include "bench/report.h"
#include "bench/settings.h"

namespace refract {

struct DecodingOptions {
  BenchSettings settings;
  std::string source;  // a recipe (.toml), or a run
  // Sequences together, "1,16"; "max" alone or at the end: as many as fit on the GPU. Empty: 1,16,
  // on CUDA 1,64,max.
  std::string batches;
  int64_t prompt = 1, generate = 256;  // tokens of a prompt; tokens to make
  int64_t repeats = 3;                 // runs to time; the median counts
};
// A row for every batch.
BenchReport bench_decoding(const DecodingOptions& options);

}  // namespace refract
