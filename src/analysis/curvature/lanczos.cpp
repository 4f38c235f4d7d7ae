#include "analysis/curvature/lanczos.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <tuple>

#include "analysis/curvature/vectors.h"

namespace refract {
namespace {

constexpr int64_t kColumnsRotated = int64_t{1} << 20;

// An orthonormal basis of a Krylov space, and the operator in it: A V = V T + next coupling^T.
class Krylov {
 public:
  Krylov(const LinearOperator& product, const at::Tensor& start, int64_t capacity)
      : product_(product),
        basis_(at::empty({capacity, start.numel()}, start.options())),
        operator_(at::zeros({capacity, capacity}, at::kDouble)),
        coupling_(at::zeros({capacity}, at::kDouble)),
        next_(start.div(length_of(start))) {}

  int64_t size() const { return size_; }
  bool full() const { return size_ == basis_.size(0); }
  bool exhausted() const { return !next_.defined(); }  // the space is invariant

  void extend();
  // Ascending eigenvalues in the space [size] and their vectors in the basis, as columns.
  void solve();
  double value(int64_t i) const { return values_[i].item<double>(); }
  double residual(int64_t i) const {
    return std::abs(coupling().dot(vectors_.select(1, i)).item<double>());
  }
  double first_component(int64_t i) const { return vectors_[0][i].item<double>(); }
  at::Tensor vector(int64_t i) const {
    return used().t().mv(vectors_.select(1, i).to(basis_.options()));
  }
  double asymmetry() const;
  // Goes on from these eigenvectors of the space.
  void restart(const std::vector<int64_t>& kept);

 private:
  at::Tensor used() const { return basis_.narrow(0, 0, size_); }
  at::Tensor projected() const { return operator_.narrow(0, 0, size_).narrow(1, 0, size_); }
  at::Tensor coupling() const { return coupling_.narrow(0, 0, size_); }

  const LinearOperator& product_;
  at::Tensor basis_, operator_, coupling_, next_, values_, vectors_;
  int64_t size_ = 0;
};

void Krylov::extend() {
  basis_.select(0, size_).copy_(next_);
  if (size_ > 0) operator_.select(0, size_).narrow(0, 0, size_).copy_(coupling());
  at::Tensor rest = product_(basis_.select(0, size_)).to(basis_.options());
  ++size_;
  const double whole = length_of(rest);
  at::Tensor parts = at::zeros({size_}, at::kDouble);
  for (int pass = 0; pass < 2; ++pass) {  // twice is enough
    const at::Tensor part = used().mv(rest);
    rest = rest.sub(used().t().mv(part));
    parts.add_(part.to(at::kCPU, at::kDouble));
  }
  operator_.select(1, size_ - 1).narrow(0, 0, size_).copy_(parts);
  const double length = length_of(rest);
  const double rounding = basis_.scalar_type() == at::kDouble ? 1e-13 : 1e-5;
  coupling_.zero_();
  if (length <= rounding * whole) {
    next_ = at::Tensor();
    return;
  }
  coupling_[size_ - 1] = length;
  next_ = rest.div_(length);
}

void Krylov::solve() {
  const at::Tensor t = projected();
  std::tie(values_, vectors_) = at::linalg_eigh(t.add(t.t()).mul(0.5));
}

double Krylov::asymmetry() const {
  const at::Tensor t = projected();
  const double length = t.norm().item<double>();
  return length > 0 ? t.sub(t.t()).norm().item<double>() / length : 0;
}

void Krylov::restart(const std::vector<int64_t>& kept) {
  const auto count = static_cast<int64_t>(kept.size());
  const at::Tensor columns = vectors_.index_select(1, at::tensor(kept, at::kLong));
  const at::Tensor turn = columns.t().contiguous().to(basis_.options());
  const at::Tensor values = values_.index_select(0, at::tensor(kept, at::kLong));
  const at::Tensor coupled = columns.t().mv(coupling());
  for (int64_t begin = 0; begin < basis_.size(1); begin += kColumnsRotated) {
    const int64_t length = std::min(kColumnsRotated, basis_.size(1) - begin);
    const at::Tensor part = turn.mm(used().narrow(1, begin, length));
    basis_.narrow(0, 0, count).narrow(1, begin, length).copy_(part);
  }
  operator_.zero_();
  operator_.diagonal().narrow(0, 0, count).copy_(values);
  coupling_.zero_();
  coupling_.narrow(0, 0, count).copy_(coupled);
  size_ = count;
}

// The largest `top` and as many more as help, and the smallest one.
std::vector<int64_t> kept_at_restart(int64_t size, int64_t top) {
  std::vector<int64_t> kept;
  for (int64_t i = size - 1; i > 0 && static_cast<int64_t>(kept.size()) < top + 2; --i)
    kept.push_back(i);
  if (static_cast<int64_t>(kept.size()) > size - 3) kept.resize(static_cast<size_t>(size) - 3);
  kept.push_back(0);
  return kept;
}

bool within(const Krylov& space, int64_t top, double tolerance) {
  if (space.exhausted()) return true;
  if (space.size() < top) return false;
  const int64_t last = space.size() - 1;
  const double scale = std::max(std::abs(space.value(0)), std::abs(space.value(last)));
  for (int64_t i = 0; i < top; ++i) {
    if (!(space.residual(last - i) <= tolerance * scale)) return false;
  }
  return true;
}

}  // namespace

Spectrum largest_eigenvalues(const LinearOperator& product, const at::Tensor& start,
                             const LanczosOptions& options,
                             const std::function<void(int64_t)>& done) {
  const int64_t n = start.numel(), top = std::min(options.top, n);
  const int64_t basis = options.basis > 0 ? options.basis : 2 * options.top + 6;
  Krylov space(product, start, std::min(n, std::max(basis, top + 4)));
  Spectrum found;
  while (true) {
    space.extend();
    ++found.products;
    if (done) done(found.products);
    space.solve();
    found.converged = within(space, top, options.tolerance);
    if (found.converged || found.products >= options.most_products) break;
    if (space.full()) space.restart(kept_at_restart(space.size(), top));
  }
  const int64_t last = space.size() - 1;
  for (int64_t i = last; i >= 0 && last - i < top; --i)
    found.largest.push_back({space.value(i), space.residual(i)});
  found.smallest = {space.value(0), space.residual(0)};
  found.asymmetry = space.asymmetry();
  found.direction = space.vector(last);
  return found;
}

Quadrature lanczos_quadrature(const LinearOperator& product, const at::Tensor& start,
                              int64_t steps) {
  Krylov space(product, start, std::min(steps, start.numel()));
  while (!space.full() && !space.exhausted()) space.extend();
  space.solve();
  Quadrature result;
  for (int64_t i = 0; i < space.size(); ++i) {
    result.nodes.push_back(space.value(i));
    result.weights.push_back(space.first_component(i) * space.first_component(i));
  }
  return result;
}

}  // namespace refract
