#include "analysis/matching/universe.h"

#include <ATen/ops/equal.h>

#include <cmath>

#include "analysis/matching/align.h"
#include "core/error.h"

namespace refract {
namespace {

double spread_of(std::span<Decoder* const> models, Decoder& mean,
                 std::vector<double>* distances = nullptr) {
  write_mean(models, mean);
  const at::Tensor center = mean.arena().master().to(at::kDouble);
  double sum = 0;
  if (distances) distances->clear();
  for (Decoder* model : models) {
    const at::Tensor own = model->arena().master().to(center.options());
    const double square = own.sub_(center).square_().sum().item<double>();
    if (distances) distances->push_back(std::sqrt(square));
    sum += square;
  }
  return std::sqrt(sum / static_cast<double>(models.size()));
}

// Whether the model moved.
bool match_with_mean(std::span<Decoder* const> others, Decoder& mean, Decoder& model,
                     const AlignOptions& options) {
  write_mean(others, mean);
  const at::Tensor before = model.arena().master().clone();
  align(mean, model, options);
  return !at::equal(before, model.arena().master());
}

}  // namespace

void write_mean(std::span<Decoder* const> models, Decoder& mean) {
  at::Tensor sum;
  for (Decoder* model : models) {
    const at::Tensor& own = model->arena().master();
    sum =
        sum.defined() ? sum.add_(own) : own.to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
  }
  at::Tensor target = mean.arena().master();
  target.copy_(sum.div_(static_cast<double>(models.size())));
  mean.arena().refresh_compute();
}

UniverseReport match_universe(std::span<Decoder* const> models, Decoder& mean,
                              const std::string& residual, int64_t most_rounds) {
  if (models.size() < 2) fail_usage("a common frame is that of at least two models");
  UniverseReport report;
  report.spread_before = spread_of(models, mean);
  AlignOptions options;
  options.residual = residual;
  for (size_t i = 1; i < models.size(); ++i)
    match_with_mean(models.first(i), mean, *models[i], options);
  bool moved = true;
  while (moved && report.rounds < most_rounds) {
    moved = false;
    for (size_t i = 0; i < models.size(); ++i) {
      std::vector<Decoder*> others(models.begin(), models.end());
      others.erase(others.begin() + static_cast<std::ptrdiff_t>(i));
      moved = match_with_mean(others, mean, *models[i], options) || moved;
    }
    ++report.rounds;
  }
  report.spread_after = spread_of(models, mean, &report.distances);
  return report;
}

}  // namespace refract
