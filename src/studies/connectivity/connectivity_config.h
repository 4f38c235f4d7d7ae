// Settings of the instability analysis ([connectivity] in a recipe), beside those of its runs.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace refract {

class Fields;

inline constexpr int64_t kMostAlphas = 100000;  // points on a path

struct ConnectivityConfig {
  std::vector<int64_t> spawn = {0};
  int64_t copies = 2;
  std::vector<int64_t> seeds;
  std::string pairs = "twins";
  std::string differ = "auto";
  std::string variant;  // [[connectivity.variant]] as JSON; empty: none
  int64_t alphas = 30;
  std::string batches = "all";
  std::vector<std::string> splits = {"train", "val"};
  std::string align = "none";
  std::string engine = "auto";
  double threshold = 0.02;
  int64_t side_by_side = 0;
};

// One of several rule sets that are trained from the same start.
struct ConnectivityVariant {
  std::string name;
  std::string transform;  // [[transform]] as JSON, or empty
};

void describe(Fields& fields, ConnectivityConfig& config);

// The table of a recipe's tree, checked; defaults where it has none.
ConnectivityConfig make_connectivity_config(const nlohmann::json& tree, const std::string& where);

// Makes a recipe's [connectivity] known to make_run_config, which checks it whatever the command
// is.
void register_connectivity_table();

std::vector<ConnectivityVariant> variants_of(const ConnectivityConfig& config);

// Batches of a split that are evaluated; 0: all. Fails (usage) for what is neither.
int64_t batches_of(const ConnectivityConfig& config);

}  // namespace refract
