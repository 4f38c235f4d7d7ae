// The paths between the members of an instability analysis. Each is measured once and kept in a
// file beside its runs.
#pragma once
#include <filesystem>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "analysis/path.h"
#include "studies/connectivity/connectivity_output.h"
#include "studies/connectivity/instability_runs.h"

namespace refract {

// How the points of the paths are evaluated. Needs no data; fails (usage) for an engine that the
// recipe's rules rule out, and for a wrong number of batches.
PointOptions path_point_options(const InstabilityPlan& plan);

class ConnectivityPaths {
 public:
  explicit ConnectivityPaths(InstabilityPlan plan);

  // Fails (usage) for settings that the paths would only find wrong once all is trained.
  void check_settings() const;

  // The paths between all members of each seed and spawn step, which have to be trained. A path
  // that was measured with the same settings is read from its file.
  ConnectivityResult measure(const InstabilityRuns& runs);

 private:
  std::vector<PairPath> pairs_of(const InstabilityRuns& runs, const SpawnResult& spawned,
                                 const std::function<void()>& progressed);
  PathResult path_of(const std::filesystem::path& file, const Member& a, const Member& b);
  std::optional<PathResult> saved_path(const std::filesystem::path& file,
                                       const nlohmann::json& with) const;
  PathResult measure_pair(const Member& a, const Member& b);
  Weights weights(const Member& member);
  Weights aligned(const Weights& a, const Weights& b) const;
  const std::shared_ptr<TokenStream>& stream_of(const std::string& split) const;
  nlohmann::json measured_with(const Member& a, const Member& b) const;
  RunConfig path_config() const;

  InstabilityPlan plan_;
  PointOptions options_;
  std::unique_ptr<Decoder> model_;  // the paths are evaluated in
};

}  // namespace refract
