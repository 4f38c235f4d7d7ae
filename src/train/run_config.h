// All settings of a run: what a recipe holds.
#pragma once
#include <cstdint>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "data/config.h"
#include "model/config.h"
#include "train/recipe.h"

namespace refract {

class Fields;

struct RunConfig {
  struct Run {
    std::string dir = "runs/unnamed";
    int64_t seed = 1;
    int64_t noise_seed = -1;
  } run;
  DataConfig data;
  ModelConfig model;
  struct Init {
    std::string from = "random";
    std::string adapter;
  } init;
  struct Optimizer {
    std::string name = "adamw";
    double lr = 6e-4;
    std::vector<double> betas = {0.9, 0.95};
    double eps = 1e-8;
    double weight_decay = 0.1;
    std::string decay = "matrices";
    double clip = 1.0;
    double momentum = 0.9;
    bool nesterov = false;
  } optimizer;
  struct Schedule {
    std::string kind = "cosine";
    double warmup = 0.02;
    double start = 0;
    double final = 0.1;
    int64_t warmup_from = 1;
    double cycles = 1;
    double power = 1;
    std::vector<double> milestones;
    double gamma = 0.1;
  } schedule;
  struct Train {
    int64_t steps = 0;
    std::string tokens;
    double nominal = 0;
    std::string rounding = "nearest";
    double minutes = 0;
    int64_t batch = 32;
    int64_t micro_batch = 0;
    int64_t reduction_groups = 0;
    std::string recompute = "none";
    std::string shard = "none";
    std::string save = "sync";
    std::string precision = "fp32";
    std::string device = "auto";
    std::string cuda_graph = "auto";
    bool deterministic = false;
    int64_t verify = 0;
    int64_t threads = 0;
    double timeout = 8;
  } train;
  struct SelfGuided {
    std::string mode = "none";
    double ratio = 0.5;
    std::string schedule = "cosine";
    bool reduce_flop = false;
  } self_guided;
  struct Eval {
    int64_t every = 500;
    std::string batches = "all";
    int64_t samples = 1;
    int64_t sample_tokens = 100;
    std::string prompt;
    double temperature = 0.8;
  } eval;
  struct Decode {
    std::string premerge = "auto";
  } decode;
  struct Checkpoint {
    int64_t every = 1000;
    int64_t keep = 2;
    std::vector<int64_t> permanent;
  } checkpoint;
  struct Log {
    int64_t every = 10;
  } log;
  std::string transform;  // [[transform]] as JSON; empty: none
  std::string only;       // train.only, a regular expression; empty: all is trained
  struct Distill {
    double weight = 0;
    double temperature = 1;
    std::string teacher;
    bool on() const { return weight > 0; }
  } distill;

  // What the order of training windows, and dropout and noise, are functions of.
  int64_t order_seed() const { return data.order_seed >= 0 ? data.order_seed : run.seed; }
  int64_t noise_seed() const { return run.noise_seed >= 0 ? run.noise_seed : run.seed; }
};

void describe(Fields& fields, RunConfig& config);

// Settings from a recipe's tree: defaults, then the model's preset or `base_model` (a
// checkpoint's), then the tree's own keys. `where` names the source in errors.
RunConfig make_run_config(const nlohmann::json& tree, const std::string& where,
                          const ModelConfig* base_model = nullptr);

// Enters a table of a recipe that is not a run's own, [connectivity] say: make_run_config then
// leaves it alone but for `check`, which gets the whole tree and `where` and fails (usage) for what
// is wrong.
void register_recipe_table(std::string name,
                           std::function<void(const nlohmann::json&, const std::string&)> check);

// The resolved settings as TOML.
std::string to_toml(RunConfig config);

// Optimizer steps of the run: train.steps, or train.tokens over the tokens of a step, rounded as
// train.rounding says. N is train.nominal, or the parameter count. 0 where neither is set;
// train.minutes is made into steps by runs/time_budget.h.
int64_t resolve_steps(const RunConfig& config, int64_t parameter_count);

// Checks that keys agree with each other (batch and micro_batch, steps and tokens, ...).
void check_run_config(const RunConfig& config);

}  // namespace refract
