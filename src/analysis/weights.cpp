#include "analysis/weights.h"

#include <cmath>

#include "core/error.h"
#include "model/frozen_values.h"

namespace refract {
namespace {

constexpr int64_t kChunk = int64_t{1} << 24;  // elements converted to double at a time

at::Tensor blend(std::span<const Weights> corners, std::span<const double> coefficients,
                 const std::function<const at::Tensor&(const Weights&)>& part) {
  if (const int64_t corner = corner_of(coefficients); corner >= 0)
    return part(corners[corner]).clone();
  at::Tensor sum;
  for (size_t i = 0; i < corners.size(); ++i) {
    const at::Tensor& value = part(corners[i]);
    if (!value.is_floating_point()) {
      if (coefficients[i] > 0 && !sum.defined()) sum = value.clone();
    } else if (!sum.defined()) {
      sum = value.mul(coefficients[i]);
    } else {
      sum.add_(value, coefficients[i]);
    }
  }
  return sum;
}

}  // namespace

Weights weights_of(Decoder& model) {
  Weights weights{all_values(model.arena()), {}};
  for (const BufferStore::Buffer& buffer : model.buffers().all())
    weights.buffers.push_back(buffer.tensor.clone());
  return weights;
}

void set_weights(Decoder& model, const Weights& weights) {
  if (model.arena().compute().sizes() != weights.parameters.sizes() ||
      model.buffers().all().size() != weights.buffers.size()) {
    throw std::logic_error("these are the weights of another model");
  }
  set_all_values(model.arena(), weights.parameters);
  size_t i = 0;
  for (BufferStore::Buffer& buffer : model.buffers().all())
    buffer.tensor.copy_(weights.buffers[i++]);
}

int64_t corner_of(std::span<const double> coefficients) {
  int64_t corner = -1;
  for (size_t i = 0; i < coefficients.size(); ++i) {
    if (coefficients[i] == 0) continue;
    if (coefficients[i] != 1 || corner >= 0) return -1;
    corner = static_cast<int64_t>(i);
  }
  return corner;
}

Weights combine(std::span<const Weights> corners, std::span<const double> coefficients) {
  if (corners.empty() || corners.size() != coefficients.size())
    throw std::logic_error("a combination takes one coefficient a corner");
  Weights result;
  result.parameters = blend(corners, coefficients,
                            [](const Weights& w) -> const at::Tensor& { return w.parameters; });
  for (size_t b = 0; b < corners[0].buffers.size(); ++b) {
    result.buffers.push_back(
        blend(corners, coefficients,
              [b](const Weights& w) -> const at::Tensor& { return w.buffers[b]; }));
  }
  return result;
}

Geometry geometry_of(const Weights& a, const Weights& b) {
  double aa = 0, bb = 0, ab = 0, difference = 0;
  const int64_t n = a.parameters.numel();
  for (int64_t begin = 0; begin < n; begin += kChunk) {
    const int64_t length = std::min(kChunk, n - begin);
    const at::Tensor x = a.parameters.narrow(0, begin, length).to(at::kDouble);
    const at::Tensor y = b.parameters.narrow(0, begin, length).to(at::kDouble);
    aa += x.dot(x).item<double>();
    bb += y.dot(y).item<double>();
    ab += x.dot(y).item<double>();
    const at::Tensor d = x.sub(y);
    difference += d.dot(d).item<double>();
  }
  return {std::sqrt(aa), std::sqrt(bb), std::sqrt(difference), ab};
}

std::vector<double> equally_spaced(int64_t n) {
  std::vector<double> points;
  for (int64_t i = 0; i < n; ++i)
    points.push_back(static_cast<double>(i) / static_cast<double>(n - 1));
  return points;
}

}  // namespace refract
