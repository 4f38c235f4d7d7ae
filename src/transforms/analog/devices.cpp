#include "transforms/analog/devices.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/exp.h>
#include <ATen/ops/log.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/reciprocal.h>

#include <array>
#include <cmath>
#include <span>
#include <utility>

namespace refract {
namespace {

constexpr double kPcmLargest = 25, kReramLargest = 40;  // uS, which the polynomials are given for
constexpr double kFirstReading = 20, kReadingTime = 250e-9, kDay = 86400;  // s
constexpr double kSmallest = 1e-7;  // share whose logarithm is taken

constexpr std::array<double, 3> kPcm = {0.26348, 1.9650, -1.1731};

struct ReramFit {
  double time;
  std::array<double, 5> coefficients;
};
constexpr std::array<ReramFit, 3> kReram = {
    {{1, {0.348, 16.030, -43.853, 45.393, -16.815}},
     {kDay, {0.701, 22.086, -50.773, 47.095, -16.458}},
     {2 * kDay, {0.782, 20.274, -43.507, 37.062, -11.934}}}};

std::array<double, 5> reram_coefficients(double time) {
  if (time <= kReram.front().time) return kReram.front().coefficients;
  size_t upper = 1;
  while (upper < kReram.size() && time > kReram[upper].time) ++upper;
  if (upper == kReram.size()) return kReram.back().coefficients;
  const ReramFit &a = kReram[upper - 1], &b = kReram[upper];
  const double share = std::log(time / a.time) / std::log(b.time / a.time);
  std::array<double, 5> between{};
  for (size_t i = 0; i < between.size(); ++i)
    between[i] = (1 - share) * a.coefficients[i] + share * b.coefficients[i];
  return between;
}

at::Tensor polynomial(const at::Tensor& g, std::span<const double> coefficients, double factor) {
  at::Tensor sum = g.mul(coefficients.back() * factor);
  for (size_t i = coefficients.size() - 2; i > 0; --i) sum.add_(coefficients[i] * factor).mul_(g);
  return sum.add_(coefficients.front() * factor);
}

class Device {
 public:
  Device(const DeviceModel& model, const DeviceDraw& draw, std::string name)
      : model_(model), draw_(draw), name_(std::move(name)) {}

  // g in [0, 1].
  ProgrammedWeights program(const at::Tensor& g) const {
    at::Tensor programmed =
        programming_deviation(g, model_).mul_(noise(g, "programming")).add_(g).clamp_min_(0);
    if (model_.preset != "pcm" || model_.time <= 0) return {programmed, programmed};
    return {programmed, read(programmed, drifted(g, programmed))};
  }

 private:
  at::Tensor noise(const at::Tensor& like, const char* role) const {
    return draw_(like, name_ + "." + role).to(like.scalar_type());
  }

  at::Tensor drifted(const at::Tensor& g, const at::Tensor& programmed) const {
    const at::Tensor log_g = g.clamp_min(kSmallest).log_();
    const at::Tensor mean = log_g.mul(-0.0155).add_(0.0244).clamp_(0.049, 0.1);
    const at::Tensor deviation = log_g.mul(-0.0125).add_(-0.0059).clamp_(0.008, 0.045);
    const at::Tensor nu = deviation.mul_(noise(g, "drift")).mul_(model_.scale).add_(mean).abs_();
    const double passed = std::log((model_.time + kFirstReading) / kFirstReading);
    return nu.mul_(-passed).exp_().mul_(programmed);
  }

  at::Tensor read(const at::Tensor& programmed, const at::Tensor& drifted) const {
    const double t = model_.time + kFirstReading;
    const double growth = std::sqrt(std::log((t + kReadingTime) / (2 * kReadingTime)));
    const at::Tensor q =
        programmed.pow(0.65).clamp_min_(1e-3).reciprocal_().mul_(0.0088).clamp_max_(0.2);
    return q.mul_(noise(programmed, "reading"))
        .mul_(growth * model_.scale)
        .add_(1)
        .mul_(drifted)
        .clamp_min_(0);
  }

  const DeviceModel& model_;
  const DeviceDraw& draw_;
  std::string name_;
};

}  // namespace

at::Tensor programming_deviation(const at::Tensor& g, const DeviceModel& model) {
  const double factor = model.scale * model.programming;
  if (model.preset == "pcm") return polynomial(g, kPcm, factor / kPcmLargest);
  return polynomial(g, reram_coefficients(model.time), factor / kReramLargest);
}

ProgrammedWeights program_devices(const at::Tensor& g, const DeviceModel& model,
                                  const DeviceDraw& draw, const std::string& name) {
  return Device(model, draw, name).program(g);
}

ProgrammedWeights program_weights(const at::Tensor& weights, const DeviceModel& model,
                                  const DeviceDraw& draw) {
  if (model.preset == "gaussian") {
    const at::Tensor noisy = draw(weights, "programming")
                                 .to(weights.scalar_type())
                                 .mul_(model.gaussian * model.scale * model.programming)
                                 .add_(weights);
    return {noisy, noisy};
  }
  const ProgrammedWeights plus = program_devices(weights.clamp_min(0), model, draw, "plus");
  const ProgrammedWeights minus =
      program_devices(weights.neg().clamp_min_(0), model, draw, "minus");
  const at::Tensor programmed = plus.programmed.sub(minus.programmed);
  if (plus.now.is_same(plus.programmed)) return {programmed, programmed};
  return {programmed, plus.now.sub(minus.now)};
}

}  // namespace refract
