// What the bench commands share: their settings, their table, and the model they time.
#pragma once
#include <filesystem>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "model/decoder.h"
#include "runs/device.h"
#include "runs/model_folder.h"
#include "runs/plan.h"
#include "runs/recipe.h"

namespace refract {

// Device, precision and how long to time, of a command line.
struct BenchSettings {
  std::vector<std::string> overrides;  // key=value
  double seconds = 0.3;                // per figure
  bool json = false;

  // On CUDA bf16, where no train.precision is given.
  std::vector<std::string> with_precision() const;
};

// Where to run, of settings without a recipe.
struct BenchDevice {
  at::Device device = at::kCPU;
  at::ScalarType dtype = at::kFloat;
  std::string name, precision;
};
BenchDevice open_bench_device(const BenchSettings& settings);
BenchDevice bench_device(const RunConfig& config);

// Rows of figures: a table for people while they come, or one JSON object at the end.
class BenchReport {
 public:
  // `columns`: keys of the rows, shown in this order; numbers with `digits` significant digits.
  BenchReport(std::string name, const BenchDevice& device, std::vector<std::string> columns);
  ~BenchReport();
  void add(const nlohmann::json& row);
  void print(bool json) const;
  nlohmann::json& extra();  // further keys of the JSON object
  const nlohmann::json& rows() const;

 private:
  std::string name_;
  BenchDevice device_;
  std::vector<std::string> columns_;
  struct Content;  // keeps the JSON library out of this header
  std::unique_ptr<Content> content_;
};

// A model to time: a recipe's with drawn weights, or a run's, with merged forms beside all layers
// that have one; the thresholds are the caller's to set.
struct BenchModel {
  RunConfig config;
  std::filesystem::path folder;  // of a run's checkpoint; empty for a recipe
  BenchDevice device;
  std::unique_ptr<Decoder> model;
  std::vector<PremergeGroup> premerged;

  // 0: structured forms alone; kPremergeAlways: merged ones alone; unset: as measured, or the
  // default.
  void set_premerge(std::optional<int64_t> tokens);
};
// `least_context`: positions that the model must have.
BenchModel open_bench_model(const std::string& source, const BenchSettings& settings,
                            int64_t least_context = 0);
// Compares a forward pass over random tokens with the same model in its merged forms, which is what
// its layers are to compute.
void check_model(BenchModel& bench, int64_t tokens);

// int32 [batch, length] of random tokens below `vocabulary`, the same for a seed on every device.
at::Tensor random_tokens(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed);

// [tokens, width] of normal numbers on the device, in its type.
at::Tensor random_input(int64_t tokens, int64_t width, const BenchDevice& bench);

// "16,512" of an option, or `otherwise` where it was not given; fails (usage) for what is no list
// of numbers above 0.
std::vector<int64_t> parse_sizes(std::string text, const std::string& option,
                                 const std::string& otherwise = "");

}  // namespace refract
