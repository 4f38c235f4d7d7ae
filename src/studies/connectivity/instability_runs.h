// The training runs of an instability analysis: per seed a trunk, and at each spawn step copies of
// it that go on under different data orders and noise.
//
// Everything lies in one folder: seed-1/trunk, seed-1/spawn-00000500/copy-2, each an ordinary run.
// What is there already is used: a finished run as it is, a stopped one from its newest checkpoint.
#pragma once
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "runs/run_session.h"
#include "studies/connectivity/connectivity_config.h"

namespace refract {

// The settings that a run's outcome depends on, of all that its config.toml holds.
nlohmann::json decisive_settings(nlohmann::json tree);
// The place of the first difference between those in a file and `config`, "/optimizer/lr"; empty:
// there is none.
std::string other_setting(const std::filesystem::path& file, const RunConfig& config);

struct InstabilityPlan {
  RunConfig config;  // run.dir is the folder of all of it
  ConnectivityConfig connectivity;
  std::filesystem::path source;  // where every trunk starts; empty: from random weights
  bool names_tokenizer = false;  // the recipe does, so the source's counts for nothing
  Dataset data;
  at::Device device = at::kCPU;
  std::string where;  // the recipe, for errors
};

// What is trained on from a spawn step.
struct Member {
  std::string name;  // "copy-1", or the variant's
  RunConfig config;  // with its folder, seeds and rules
};

class InstabilityRuns {
 public:
  // Plans the model of every run: bad rules fail here.
  explicit InstabilityRuns(InstabilityPlan plan);

  const std::vector<int64_t>& seeds() const { return seeds_; }
  const std::vector<int64_t>& spawns() const { return plan_.connectivity.spawn; }
  std::vector<Member> members(int64_t seed, int64_t spawn) const;
  std::filesystem::path folder(int64_t seed, int64_t spawn) const;

  // Fails where a folder holds a run that was trained with other settings, or a damaged one.
  void check_folders() const;
  // Trains what is missing; false where a signal stopped it (all is saved).
  bool train();

 private:
  struct Task {
    RunConfig config;
    std::filesystem::path trunk;  // run to branch from; empty: from the start
    int64_t spawn = 0;
    std::vector<int64_t> stops;  // steps of a trunk that need a checkpoint; empty: to the end
  };
  using Progressed = std::function<void()>;

  void plan_rules();
  RunConfig run_config(const std::filesystem::path& folder, int64_t seed) const;
  std::vector<Task> trunks() const;
  std::vector<Task> copies() const;
  bool run_all(const std::vector<Task>& tasks, const std::string& label);
  bool run_task(const Task& task, const Progressed& progressed) const;
  bool run_trunk(Trainer& trainer, const Task& task) const;
  int64_t steps_of(const Task& task) const;

  InstabilityPlan plan_;
  std::vector<ConnectivityVariant> variants_;  // with their effective rules
  std::vector<int64_t> seeds_;
  int64_t steps_ = 0;  // of a whole run
};

}  // namespace refract
