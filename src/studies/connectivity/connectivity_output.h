// The outcome of an instability analysis: files, table, pictures.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "studies/path_output.h"

namespace refract {

struct PairPath {
  size_t a = 0, b = 0;  // members
  PathResult path;
  std::string file;  // where it lies, below the analysis' folder
};

// The copies of one seed at one spawn step.
struct SpawnResult {
  int64_t seed = 0, spawn = 0;
  std::vector<PairPath> pairs;
};

struct ConnectivityResult {
  std::string folder, pairs;
  std::vector<std::string> members;
  std::vector<int64_t> seeds, spawns;
  double threshold = 0;
  std::vector<SpawnResult> spawned;  // by seed, then spawn step

  // Relative loss barriers on the first split between all members, 0 on the diagonal.
  std::vector<std::vector<double>> matrix(const SpawnResult& spawned) const;
  // The first spawn step from which on all pairs of all seeds are connected: their relative loss
  // barrier on the first split is below the threshold. Nothing where the last one's are not.
  std::optional<int64_t> connected_from() const;
};

nlohmann::json connectivity_json(const ConnectivityResult& result);
// A line for each pair and split.
std::string connectivity_csv(const ConnectivityResult& result);
std::string connectivity_text(const ConnectivityResult& result);
void write_connectivity_page(const ConnectivityResult& result);

}  // namespace refract
