// Products of a model's Hessian and Gauss-Newton matrix with vectors, without the matrices.
//
// With g the gradient of the mean loss L at the weights w, and e the step:
//   H v   = (g(w + e v) - g(w - e v)) / 2 e                    (central differences)
//   G v   = J^T (H_L (J v)),  J v = dh W^T + h dW^T,  dh = (h(w + e v) - h(w - e v)) / 2 e
// where h are the last hidden states, W the head, J the Jacobian of the logits and H_L = diag(p) -
// p p^T the exact Hessian of the loss by the logits, over the tokens (Schraudolph, "Fast curvature
// matrix-vector products", 2002). The loss's gradient is made in its forward pass, in chunks of
// rows, so it can't be differentiated once more by autograd; differences go through whatever the
// model is made of, and need no more memory than a gradient. Their error is measured:
// CurvatureProducts::error().
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "analysis/curvature/mean_loss.h"

namespace refract {

// v [n] -> A v [n].
using LinearOperator = std::function<at::Tensor(const at::Tensor&)>;

class CurvatureProducts {
 public:
  // Around the weights of now. `step`: |e v| over |w|; 0: default_step(). All vectors are [size] in
  // the model's type; a result lies on the device of the vector that came in.
  explicit CurvatureProducts(MeanLoss& loss, double step = 0);
  // Where rounding of the gradient and curvature of higher order cost about as much, in the
  // directions of the largest eigenvalues.
  static double default_step(at::ScalarType dtype);
  // Where the gradient jumps from level to level and a difference has to span many of them.
  static constexpr double kRoughStep = 1e-3;
  // The loss bends little along a random vector, so its step may be so much larger.
  static constexpr double kProbeSteps = 10;

  // With `steps` times the step.
  at::Tensor hessian(const at::Tensor& v, double steps = 1) { return hessian_by(v, steps * step_); }
  at::Tensor gauss_newton(const at::Tensor& v, double steps = 1) {
    return gauss_newton_by(v, steps * step_);
  }
  // |A v - A' v| / |A v| with A' by twice the step.
  double hessian_error(const at::Tensor& v, double steps = 1);
  double gauss_newton_error(const at::Tensor& v, double steps = 1);
  double step() const { return step_; }

 private:
  at::Tensor hessian_by(const at::Tensor& v, double step);
  at::Tensor gauss_newton_by(const at::Tensor& v, double step);
  std::vector<at::Tensor> hidden();
  std::vector<at::Tensor> hidden_change(const at::Tensor& v, double scale);
  at::Tensor head_part(const at::Tensor& v);
  at::Tensor logit_gradient(const at::Tensor& h, const at::Tensor& dh, const at::Tensor& head);

  MeanLoss& loss_;
  double step_, weight_length_;
  at::Tensor center_;  // a copy of the weights
};

}  // namespace refract
