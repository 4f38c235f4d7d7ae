#include "studies/curvature/curvature.h"

#include <ATen/ops/equal.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "analysis/curvature/directions.h"
#include "analysis/curvature/mean_loss.h"
#include "analysis/curvature/products.h"
#include "analysis/curvature/vectors.h"
#include "analysis/plane.h"
#include "analysis/weights.h"
#include "core/choices.h"
#include "core/error.h"
#include "core/log.h"
#include "core/progress.h"
#include "runs/loaded_model.h"
#include "runs/same_model.h"
#include "studies/curvature/curvature_output.h"
#include "studies/curvature/precise_model.h"
#include "studies/media/study_tokens.h"
#include "studies/own_corpus.h"
#include "studies/study_folder.h"

namespace refract {
namespace {

// From that relative change on a product means little. Of a random vector more is borne: the trace
// is a mean over its elements, whose jumps are independent.
constexpr double kRoughProduct = 0.1, kRoughProbe = 0.5;

void check_curvature_options(const CurvatureStudy& s) {
  constexpr int64_t kMostSide = 1000, kMostTop = 1000;
  require_choice("--split", s.split, {"train", "val"});
  require_choice("--of", s.of, {"both", "hessian", "gauss-newton"});
  require_choice("--precision", s.precision, {"auto", "float64", "fp32"});
  if (s.tokens < 1) fail_usage("--tokens {} must be positive", s.tokens);
  if (s.lanczos.top < 1 || s.lanczos.top > kMostTop)
    fail_usage("--top {} must be from 1 to {}", s.lanczos.top, kMostTop);
  if (s.lanczos.basis != 0 && s.lanczos.basis < s.lanczos.top + 4) {
    fail_usage("--basis {} is too small: {} eigenvalues need at least {} vectors", s.lanczos.basis,
               s.lanczos.top, s.lanczos.top + 4);
  }
  if (s.lanczos.most_products < s.lanczos.top) {
    fail_usage("--products {} is too small: {} eigenvalues need at least as many products",
               s.lanczos.most_products, s.lanczos.top);
  }
  if (!(s.lanczos.tolerance > 0)) fail_usage("--tolerance must be above 0");
  if (s.probes < 0) fail_usage("--probes {} can't be negative", s.probes);
  if (s.density < 0) fail_usage("--density {} can't be negative", s.density);
  if (s.density > 0 && s.probes == 0) fail_usage("--density needs --probes; 1 is enough");
  if (s.points < 2) fail_usage("--points {} is too few: a path has its two ends", s.points);
  if (s.plane != 0 && (s.plane < 2 || s.plane > kMostSide))
    fail_usage("--plane {} must be 0 or from 2 to {}", s.plane, kMostSide);
  if (!(s.extent > 0) || !std::isfinite(s.extent)) fail_usage("--extent must be above 0");
  if (!(s.step >= 0) || s.step >= 1) fail_usage("--step {} must be in [0, 1)", s.step);
  if (s.seed < 0) fail_usage("--seed {} can't be negative", s.seed);
}

// Something of the model as a whole, by its short name: hessian, gauss_newton.
struct NamedOperator {
  std::string name;
  std::function<at::Tensor(const at::Tensor&, double steps)> by_steps;
  std::function<double(const at::Tensor&, double steps)> error;

  LinearOperator product() const {
    return [by = by_steps](const at::Tensor& v) { return by(v, 1); };
  }
  double along_probe(const at::Tensor& v) const {  // v^T A v
    return dot_of(v, by_steps(v, CurvatureProducts::kProbeSteps));
  }
};

class CurvatureBench {
 public:
  explicit CurvatureBench(const CurvatureStudy& study) : study_(study) {}

  void open();
  CurvatureResult measure();

 private:
  LoadedModel open_model(const std::string& name) const;
  Weights on_cpu(const Weights& weights) const;
  void choose_step();
  std::vector<NamedOperator> operators(CurvatureProducts& of) const;
  at::Tensor probe_vector(int64_t probe) const {
    return random_signs(*loaded_.model, seed(), "probe-" + std::to_string(probe));
  }
  std::vector<double> probe_samples(const NamedOperator& of) const;
  OperatorCurvature measure_operator(const NamedOperator& of, const LanczosOptions& options);
  void add_density(Quadrature& all, const Quadrature& one) const;
  void measure_trace(const NamedOperator& of, OperatorCurvature& result) const;
  void measure_path(CurvatureResult& result);
  void measure_plane(CurvatureResult& result);
  void describe(CurvatureResult& result) const;
  void warn(const CurvatureResult& result) const;
  uint64_t seed() const { return static_cast<uint64_t>(study_.seed); }

  const CurvatureStudy& study_;
  LoadedModel loaded_;
  std::vector<Weights> ends_;  // of the path, on the CPU: the model, and the other
  std::string other_;
  std::unique_ptr<MeanLoss> loss_;
  int64_t context_ = 0;
  double step_ = 0;
};

LoadedModel CurvatureBench::open_model(const std::string& name) const {
  LoadedModel loaded = load_model(name, study_.overrides);
  make_precise(loaded, derivative_dtype(study_.precision, loaded));
  return loaded;
}

Weights CurvatureBench::on_cpu(const Weights& weights) const {
  Weights copy{weights.parameters.cpu(), {}};
  for (const at::Tensor& buffer : weights.buffers) copy.buffers.push_back(buffer.cpu());
  return copy;
}

void CurvatureBench::open() {
  loaded_ = open_model(study_.model);
  require_corpus(loaded_, study_.overrides, study_.data);
  if (!study_.along.empty()) {
    const LoadedModel other = open_model(study_.along);
    if (const std::string difference = first_difference(loaded_, other); !difference.empty())
      fail_usage("there is no path between '{}' and '{}': {}", study_.model, study_.along,
                 difference);
    other_ = other.folder.string();
    ends_ = {on_cpu(weights_of(*loaded_.model)), on_cpu(weights_of(*other.model))};
    if (at::equal(ends_[0].parameters, ends_[1].parameters))
      fail_usage("--along {}: both models have the same weights", study_.along);
  }
  const StudyTokens tokens =
      study_tokens(loaded_, study_.data, study_.tokens,
                   study_.split == "val" ? StudySplit::kValidation : StudySplit::kTraining);
  std::vector<LossBatch> batches;
  for (size_t i = 0; i < tokens.batches.size(); ++i) {
    const StudyTokens::Batch& batch = tokens.batches[i];
    batches.push_back({batch.inputs, batch.targets, tokens.context(i, loaded_.model->device())});
  }
  context_ = tokens.length;
  loss_ = std::make_unique<MeanLoss>(*loaded_.model, std::move(batches));
}

std::vector<NamedOperator> CurvatureBench::operators(CurvatureProducts& of) const {
  std::vector<NamedOperator> all;
  if (study_.of != "gauss-newton") {
    all.push_back(
        {"hessian", [&of](const at::Tensor& v, double steps) { return of.hessian(v, steps); },
         [&of](const at::Tensor& v, double steps) { return of.hessian_error(v, steps); }});
  }
  if (study_.of != "hessian") {
    all.push_back(
        {"gauss_newton",
         [&of](const at::Tensor& v, double steps) { return of.gauss_newton(v, steps); },
         [&of](const at::Tensor& v, double steps) { return of.gauss_newton_error(v, steps); }});
  }
  return all;
}

// A model with rules may be rough at the step that suits a smooth one.
void CurvatureBench::choose_step() {
  step_ = study_.step > 0 ? study_.step
                          : CurvatureProducts::default_step(loss_->weights().scalar_type());
  if (study_.step > 0 || loaded_.rules.empty()) return;
  CurvatureProducts products(*loss_, step_);
  const double change = products.hessian_error(random_signs(*loaded_.model, seed(), "start"));
  if (change < kRoughProduct) return;
  step_ = CurvatureProducts::kRoughStep;
  log_info("the gradient jumps: twice the step changes a product by {:.0f}%, so the step is {}",
           100 * change, step_);
}

std::vector<double> CurvatureBench::probe_samples(const NamedOperator& of) const {
  std::vector<double> samples;
  for (int64_t probe = 0; probe < study_.probes; ++probe)
    samples.push_back(of.along_probe(probe_vector(probe)));
  return samples;
}

// As one of all probes.
void CurvatureBench::add_density(Quadrature& all, const Quadrature& one) const {
  for (size_t i = 0; i < one.nodes.size(); ++i) {
    all.nodes.push_back(one.nodes[i]);
    all.weights.push_back(one.weights[i] / static_cast<double>(study_.probes));
  }
}

void CurvatureBench::measure_trace(const NamedOperator& of, OperatorCurvature& result) const {
  std::vector<double> samples;
  Progress progress(of.name + " trace", study_.probes);
  for (int64_t probe = 0; probe < study_.probes; ++probe) {
    const at::Tensor v = probe_vector(probe);
    samples.push_back(of.along_probe(v));
    if (study_.density > 0)
      add_density(result.density, lanczos_quadrature(of.product(), v, study_.density));
    progress.update(probe + 1);
  }
  progress.finish();
  result.trace = trace_of(samples);
}

OperatorCurvature CurvatureBench::measure_operator(const NamedOperator& of,
                                                   const LanczosOptions& options) {
  OperatorCurvature result;
  result.name = of.name;
  const at::Tensor start = random_signs(*loaded_.model, seed(), "start");
  Progress progress(of.name + " eigenvalues", options.most_products);
  result.spectrum = largest_eigenvalues(of.product(), start, options,
                                        [&](int64_t done) { progress.update(done); });
  progress.finish();
  result.error_largest = of.error(result.spectrum.direction, 1);
  result.error_random = of.error(start, CurvatureProducts::kProbeSteps);
  measure_trace(of, result);
  return result;
}

void CurvatureBench::measure_path(CurvatureResult& result) {
  const at::Tensor along = ends_[0].parameters.sub(ends_[1].parameters).narrow(0, 0, loss_->size());
  result.path_length = length_of(along);
  LanczosOptions options = study_.lanczos;
  options.top = 1;
  Progress progress("path", study_.points);
  for (const double alpha : equally_spaced(study_.points)) {
    const double coefficients[] = {alpha, 1 - alpha};
    set_weights(*loaded_.model, combine(ends_, coefficients));
    CurvatureProducts products(*loss_, step_);
    const NamedOperator of = operators(products).front();
    CurvaturePoint point;
    point.alpha = alpha;
    point.loss = loss_->value();
    const at::Tensor start = random_signs(*loaded_.model, seed(), "start");
    point.largest = largest_eigenvalues(of.product(), start, options).largest.front();
    point.trace = trace_of(probe_samples(of));
    point.along = dot_of(along, of.by_steps(along, 1)) / dot_of(along, along);
    result.path.push_back(point);
    progress.update(static_cast<int64_t>(result.path.size()));
  }
  progress.finish();
  set_weights(*loaded_.model, ends_[0]);
}

void CurvatureBench::measure_plane(CurvatureResult& result) {
  const at::Device device = loaded_.model->device();
  const at::Tensor x_way = filter_normalized(*loaded_.model, seed(), "plane-x").to(device);
  const at::Tensor y_way = filter_normalized(*loaded_.model, seed(), "plane-y").to(device);
  const at::Tensor center = loss_->weights().clone();
  result.plane_axis = axis(-study_.extent, study_.extent, study_.plane, 0);
  Progress progress("plane", study_.plane * study_.plane);
  int64_t done = 0;
  for (const double y : result.plane_axis) {
    const at::Tensor row = center.add(y_way, y);
    result.plane_loss.emplace_back();
    for (const double x : result.plane_axis) {
      loss_->move_to(row, x_way, x);
      result.plane_loss.back().push_back(loss_->value());
      progress.update(++done);
    }
  }
  progress.finish();
  loss_->move_to(center, center, 0);
}

void CurvatureBench::describe(CurvatureResult& result) const {
  result.folder = loaded_.folder.string();
  result.other = other_;
  result.corpus =
      study_.data.empty()
          ? fmt::format("the {} split of {}", study_.split == "val" ? "validation" : "training",
                        fmt::join(loaded_.config.data.path, ", "))
          : fmt::format("{}", fmt::join(study_.data, ", "));
  std::set<std::string> kinds;
  for (const Rule& rule : loaded_.rules.all()) {
    if (rule.make) kinds.insert(rule.kind);
  }
  result.kinds.assign(kinds.begin(), kinds.end());
  result.precision = loss_->weights().scalar_type() == at::kDouble ? "float64" : "fp32";
  result.tokens = loss_->tokens();
  result.context = context_;
  result.step = step_;
  result.parameters = loaded_.model->arena().trainable_count();
}

void CurvatureBench::warn(const CurvatureResult& result) const {
  for (const OperatorCurvature& one : result.operators) {
    if (!one.spectrum.converged) {
      log_warning(
          "{}: after {} products not all eigenvalues are within --tolerance; see their "
          "residuals, or allow more --products",
          one.name, one.spectrum.products);
    }
    if (std::max(one.error_largest, one.spectrum.asymmetry) <= kRoughProduct &&
        one.error_random <= kRoughProbe)
      continue;
    log_warning(
        "{}: twice the step changes a product with the eigenvector by {:.0f}% and one with a "
        "random vector by {:.0f}%, and it is {:.0f}% away from symmetric: the gradient is not "
        "smooth at this distance; try another --step (now {})",
        one.name, 100 * one.error_largest, 100 * one.error_random, 100 * one.spectrum.asymmetry,
        result.step);
  }
}

CurvatureResult CurvatureBench::measure() {
  CurvatureResult result;
  choose_step();
  describe(result);
  result.loss = loss_->value();
  result.gradient_length = length_of(loss_->gradient());
  {
    CurvatureProducts products(*loss_, step_);
    for (const NamedOperator& of : operators(products))
      result.operators.push_back(measure_operator(of, study_.lanczos));
  }
  warn(result);
  if (!ends_.empty()) measure_path(result);
  if (study_.plane > 0) measure_plane(result);
  return result;
}

}  // namespace

CurvatureResult measure_curvature(const CurvatureStudy& study) {
  check_curvature_options(study);
  // Before anything is computed, so that no result is lost for want of a place.
  const StudyFolder folder(study.out);
  const auto start = std::chrono::steady_clock::now();
  CurvatureBench bench(study);
  bench.open();
  CurvatureResult result = bench.measure();
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  write_curvature(result, folder.path());
  return result;
}

}  // namespace refract
