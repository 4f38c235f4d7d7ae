#include "studies/merge/merge_methods.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/sign.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "core/random.h"

namespace refract {
namespace {

at::Tensor linear(const std::vector<at::Tensor>& models, const std::vector<double>& weights) {
  const double all = std::accumulate(weights.begin(), weights.end(), 0.0);
  at::Tensor sum = at::zeros_like(models[0], at::kFloat);
  for (size_t i = 0; i < models.size(); ++i) sum.add_(models[i].to(at::kFloat), weights[i] / all);
  return sum;
}

at::Tensor slerp(const at::Tensor& a, const at::Tensor& b, double t) {
  constexpr double kParallel = 0.9995;
  const auto direction = [](const at::Tensor& tensor) {
    const at::Tensor norm = at::linalg_vector_norm(tensor);
    return tensor / at::where(norm > 1e-8, norm, 1.0);
  };
  const double cosine = std::clamp((direction(a) * direction(b)).sum().item<double>(), -1.0, 1.0);
  if (std::abs(cosine) > kParallel) return a * (1 - t) + b * t;
  const double angle = std::acos(cosine), whole = std::sin(angle);
  return a * (std::sin((1 - t) * angle) / whole) + b * (std::sin(t * angle) / whole);
}

// Of the largest magnitudes density n, at least one; of equal ones the first.
at::Tensor keep_largest(const at::Tensor& delta, double density) {
  const int64_t n = delta.numel();
  if (density >= 1 || n == 0) return delta;
  const int64_t kept = std::max<int64_t>(1, static_cast<int64_t>(density * static_cast<double>(n)));
  const at::Tensor flat = delta.reshape({-1});
  const at::Tensor where =
      at::argsort(flat.abs(), /*stable=*/true, 0, /*descending=*/true).narrow(0, 0, kept);
  at::Tensor sparse = at::zeros_like(flat);
  sparse.index_copy_(0, where, flat.index_select(0, where));
  return sparse.reshape(delta.sizes());
}

at::Tensor drop_at_random(const at::Tensor& delta, double density, int64_t seed,
                          const std::string& stream) {
  if (density >= 1) return delta;
  const at::Tensor mask = at::empty({delta.numel()});
  RandomStream random(static_cast<uint64_t>(seed), stream);
  float* values = mask.mutable_data_ptr<float>();
  const auto kept = static_cast<float>(1 / density);
  for (int64_t i = 0; i < delta.numel(); ++i) values[i] = random.uniform() < density ? kept : 0.0F;
  return delta * mask.reshape(delta.sizes());
}

// The mean by weights of what agrees in sign with the sum; nothing where all are 0.
at::Tensor agreeing(const std::vector<at::Tensor>& weighted, const std::vector<double>& weights) {
  at::Tensor sum = at::zeros_like(weighted[0]);
  for (const at::Tensor& delta : weighted) sum.add_(delta);
  const at::Tensor sign = at::where(sum >= 0, 1.0, -1.0);
  at::Tensor kept = at::zeros_like(sum), divisor = at::zeros_like(sum);
  for (size_t i = 0; i < weighted.size(); ++i) {
    const at::Tensor agrees = at::sign(weighted[i]).eq(sign).to(at::kFloat);
    kept.add_(weighted[i] * agrees);
    divisor.add_(agrees, weights[i]);
  }
  return kept / at::where(divisor.abs() < 1e-8, 1.0, divisor);
}

at::Tensor by_task_vectors(const std::string& name, const std::vector<at::Tensor>& models,
                           const at::Tensor& base, const MergeSettings& s) {
  const bool dare = s.method.starts_with("dare");
  std::vector<at::Tensor> weighted;
  for (size_t i = 0; i < models.size(); ++i) {
    at::Tensor delta = models[i].to(at::kFloat) - base;
    if (s.method == "ties") delta = keep_largest(delta, s.density);
    if (dare) delta = drop_at_random(delta, s.density, s.seed, fmt::format("dare:{}:{}", i, name));
    weighted.push_back(delta * s.weights[i]);
  }
  if (s.method.ends_with("ties")) return base + agreeing(weighted, s.weights) * s.lambda;
  at::Tensor sum = at::zeros_like(base);
  for (const at::Tensor& delta : weighted) sum.add_(delta);
  return base + sum * s.lambda;
}

}  // namespace

const std::vector<std::string>& merge_methods() {
  static const std::vector<std::string> methods = {"linear", "slerp", "task_arithmetic",
                                                   "ties",   "dare",  "dare_ties"};
  return methods;
}

at::Tensor merge_tensors(const std::string& name, const std::vector<at::Tensor>& models,
                         const at::Tensor& base, const MergeSettings& settings) {
  if (settings.method == "linear") return linear(models, settings.weights);
  if (settings.method == "slerp")
    return slerp(models[0].to(at::kFloat), models[1].to(at::kFloat), settings.t);
  return by_task_vectors(name, models, base.to(at::kFloat), settings);
}

}  // namespace refract
