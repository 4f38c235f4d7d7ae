#include "analysis/curvature/products.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "analysis/curvature/vectors.h"

namespace refract {
namespace {

constexpr int64_t kLogitBytes = int64_t{64} << 20;  // of one matrix of a chunk's logits

double relative_change(const at::Tensor& once, const at::Tensor& twice) {
  const double length = length_of(once);
  return length > 0 ? length_of(once.sub(twice)) / length : 0;
}

}  // namespace

// Central differences err by the square of the step, and by rounding over the step.
double CurvatureProducts::default_step(at::ScalarType dtype) {
  return dtype == at::kDouble ? 1e-7 : 3e-5;
}

CurvatureProducts::CurvatureProducts(MeanLoss& loss, double step)
    : loss_(loss),
      step_(step > 0 ? step : default_step(loss.weights().scalar_type())),
      weight_length_(length_of(loss.weights())),
      center_(loss.weights().clone()) {}

at::Tensor CurvatureProducts::hessian_by(const at::Tensor& direction, double step) {
  const at::Tensor v = direction.to(center_.options());
  const double length = length_of(v);
  if (length == 0) return at::zeros_like(direction);
  const double scale = step * weight_length_ / length;
  loss_.move_to(center_, v, scale);
  at::Tensor product = loss_.gradient().clone();
  loss_.move_to(center_, v, -scale);
  product.sub_(loss_.gradient()).div_(2 * scale);
  loss_.move_to(center_, v, 0);
  return product.to(direction.device());
}

std::vector<at::Tensor> CurvatureProducts::hidden() {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> states;
  for (const LossBatch& batch : loss_.batches())
    states.push_back(loss_.model().hidden(batch.context, batch.inputs));
  return states;
}

// Of each batch.
std::vector<at::Tensor> CurvatureProducts::hidden_change(const at::Tensor& v, double scale) {
  loss_.move_to(center_, v, scale);
  std::vector<at::Tensor> change = hidden();
  loss_.move_to(center_, v, -scale);
  const std::vector<at::Tensor> before = hidden();
  loss_.move_to(center_, v, 0);
  for (size_t i = 0; i < change.size(); ++i) change[i].sub_(before[i]).div_(2 * scale);
  return change;
}

// The head's rows of a flat vector [V, C]; undefined where the head is frozen.
at::Tensor CurvatureProducts::head_part(const at::Tensor& v) {
  const ModelPlan& plan = loss_.model().plan();
  const TablePlan& head = plan.head ? *plan.head : plan.tokens;
  const Parameter* parameter = loss_.model().arena().find(head.name);
  if (!parameter->trainable) return {};
  return v.narrow(0, parameter->offset, parameter->numel()).view(parameter->shape);
}

// The gradient by h [n, C] of sum_i z_i . u_i with u = H_L (J v) held fixed; the head's own is left
// in the arena. dh: the change of h along v; head: that of the head, or undefined.
at::Tensor CurvatureProducts::logit_gradient(const at::Tensor& h, const at::Tensor& dh,
                                             const at::Tensor& head) {
  Decoder& model = loss_.model();
  const int64_t row_bytes = model.plan().tokens.rows * h.element_size();
  const int64_t chunk = std::max<int64_t>(1, kLogitBytes / row_bytes);
  at::Tensor gradient = at::empty_like(h);
  for (int64_t first = 0; first < h.size(0); first += chunk) {
    const int64_t rows = std::min(chunk, h.size(0) - first);
    const at::Tensor leaf = h.narrow(0, first, rows).detach().requires_grad_(true);
    const at::Tensor logits = model.logits(leaf);
    at::Tensor change;
    {
      const at::NoGradGuard no_grad;
      change = model.logits(dh.narrow(0, first, rows));
      if (head.defined()) change.add_(at::linear(leaf.detach(), head));
      const at::Tensor p = at::softmax(logits.detach(), -1);
      change.sub_(p.mul(change).sum(-1, /*keepdim=*/true)).mul_(p);
      change.div_(static_cast<double>(loss_.tokens()));
    }
    logits.backward(change);
    gradient.narrow(0, first, rows).copy_(leaf.grad());
  }
  return gradient;
}

at::Tensor CurvatureProducts::gauss_newton_by(const at::Tensor& direction, double step) {
  const at::Tensor v = direction.to(center_.options());
  const double length = length_of(v);
  if (length == 0) return at::zeros_like(direction);
  const std::vector<at::Tensor> change = hidden_change(v, step * weight_length_ / length);
  const at::Tensor head = head_part(v);
  const at::AutoGradMode with_gradients(true);
  at::Tensor grads = loss_.model().arena().grads();
  grads.zero_();
  for (size_t i = 0; i < change.size(); ++i) {
    const LossBatch& batch = loss_.batches()[i];
    const at::Tensor h = loss_.model().hidden(batch.context, batch.inputs);
    const std::vector<int64_t> flat = {-1, h.size(-1)};
    const at::Tensor by_h = logit_gradient(h.detach().reshape(flat), change[i].reshape(flat), head);
    if (h.requires_grad()) h.backward(by_h.view(h.sizes()));
  }
  return grads.narrow(0, 0, loss_.size()).to(direction.device(), v.scalar_type(), false, true);
}

double CurvatureProducts::hessian_error(const at::Tensor& v, double steps) {
  return relative_change(hessian(v, steps), hessian(v, 2 * steps));
}

double CurvatureProducts::gauss_newton_error(const at::Tensor& v, double steps) {
  return relative_change(gauss_newton(v, steps), gauss_newton(v, 2 * steps));
}

}  // namespace refract
