// What every study of paths does: choose an engine and evaluate the points of a path.
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "analysis/path.h"
#include "studies/path_output.h"

namespace refract {

struct NamedStream {
  std::string name;  // "train", "val" or "data"
  std::shared_ptr<TokenStream> stream;
};

// The engine (PointOptions::engine) for models with or without [[transform]] rules. With rules it
// is "single"; an engine for plain layers only fails (usage) then. `setting` is the wish as the
// user wrote it, for the error: "--engine batched".
std::string engine_for(const std::string& engine, bool has_rules, const std::string& setting);

// The losses on each stream at `alphas` equally spaced points from B (alpha 0) to A (alpha 1), the
// first two of `corners`. `model` computes, and its weights change. `done` is called with the
// number of points that are finished, over all streams.
PathResult measure_path(Decoder& model, const std::vector<Weights>& corners,
                        const PointOptions& options, const std::vector<NamedStream>& streams,
                        int64_t alphas, const std::function<void(int64_t)>& done = {});

}  // namespace refract
