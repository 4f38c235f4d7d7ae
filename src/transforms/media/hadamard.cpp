#include "transforms/media/hadamard.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <numbers>

#include "core/random.h"

namespace refract {
namespace {

constexpr int64_t kLargestFactor = 64;

at::Tensor hadamard_matrix(int64_t n) {
  at::Tensor matrix = at::empty({n, n}, at::kDouble);
  auto* value = matrix.mutable_data_ptr<double>();
  const double size = 1 / std::sqrt(static_cast<double>(n));
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j)
      value[i * n + j] = std::popcount(static_cast<uint64_t>(i & j)) % 2 == 0 ? size : -size;
  }
  return matrix;
}

at::Tensor hartley_matrix(int64_t n) {
  at::Tensor matrix = at::empty({n, n}, at::kDouble);
  auto* value = matrix.mutable_data_ptr<double>();
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(i * j % n) / static_cast<double>(n);
      value[i * n + j] = (std::cos(angle) + std::sin(angle)) / std::sqrt(static_cast<double>(n));
    }
  }
  return matrix;
}

}  // namespace

Hadamard::Hadamard(int64_t width, uint64_t seed, const std::string& name) : width_(width) {
  int64_t even = 1, odd = width;
  for (; odd % 2 == 0; odd /= 2) even *= 2;
  if (odd > 1) factors_.push_back(hartley_matrix(odd));
  for (; even > 1; even /= std::min(even, kLargestFactor))
    factors_.push_back(hadamard_matrix(std::min(even, kLargestFactor)));
  signs_ = at::empty({width}, at::kDouble);
  RandomStream stream(seed, name);
  auto* sign = signs_.mutable_data_ptr<double>();
  for (int64_t i = 0; i < width; ++i) sign[i] = stream.next() % 2 == 0 ? 1 : -1;
}

void Hadamard::prepare(const at::Tensor& like) const {
  if (ready_signs_.defined() && ready_signs_.scalar_type() == like.scalar_type() &&
      ready_signs_.device() == like.device()) {
    return;
  }
  ready_.clear();
  for (const at::Tensor& factor : factors_) ready_.push_back(factor.to(like.options()));
  ready_signs_ = signs_.to(like.options());
}

// Each factor takes the last of the dimensions, which then becomes the first: after all of them the
// order is the old one.
at::Tensor Hadamard::mixed(const at::Tensor& x) const {
  at::Tensor y = x.reshape({-1, width_});
  for (auto factor = ready_.rbegin(); factor != ready_.rend(); ++factor) {
    const int64_t f = factor->size(0);
    y = at::matmul(y.reshape({y.size(0), width_ / f, f}), *factor).transpose(1, 2);
  }
  return y.reshape(x.sizes());
}

at::Tensor Hadamard::apply(const at::Tensor& x) const {
  prepare(x);
  return mixed(x.mul(ready_signs_));
}

at::Tensor Hadamard::invert(const at::Tensor& y) const {
  prepare(y);
  return mixed(y).mul(ready_signs_);
}

int64_t Hadamard::multiplications() const {
  int64_t sum = 0;
  for (const at::Tensor& factor : factors_) sum += width_ * factor.size(0);
  return sum;
}

}  // namespace refract
