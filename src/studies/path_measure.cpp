#include "studies/path_measure.h"

#include <chrono>

#include "core/error.h"

namespace refract {

std::string engine_for(const std::string& engine, bool has_rules, const std::string& setting) {
  if (!has_rules) return engine;
  if (engine == "batched" || engine == "prefixes")
    fail_usage("{} is for models without [[transform]] rules", setting);
  return "single";
}

PathResult measure_path(Decoder& model, const std::vector<Weights>& corners,
                        const PointOptions& options, const std::vector<NamedStream>& streams,
                        int64_t alphas, const std::function<void(int64_t)>& done) {
  PathResult result;
  result.alphas = equally_spaced(alphas);
  result.geometry = geometry_of(corners[0], corners[1]);
  PointEvaluator evaluator(model, corners, options);
  const auto start = std::chrono::steady_clock::now();
  for (const NamedStream& split : streams) {
    const auto before = static_cast<int64_t>(result.splits.size()) * alphas;
    const auto report = [&](int64_t points) {
      if (done) done(before + points);
    };
    result.splits.push_back(
        {split.name, evaluator.evaluate(*split.stream, path_points(result.alphas), report)});
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.engine = evaluator.engine();
  return result;
}

}  // namespace refract
