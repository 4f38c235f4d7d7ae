#include <nlohmann/json.hpp>

#include "fuzz/fuzz_target.h"
#include "studies/path_record.h"

// A path that is taken has all of its points.
FUZZ_TARGET(path_file) {
  const auto path = refract::read_path(text, "settings", {"train"}, 2);
  if (!path) return;
  if (path->alphas.size() != 2 || path->splits.size() != 1) std::abort();
  if (path->splits[0].name != "train" || path->splits[0].points.size() != 2) std::abort();
}
