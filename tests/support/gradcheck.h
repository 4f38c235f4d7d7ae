// Compares an op's gradients with central differences in float64.
#pragma once
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/rand.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <functional>
#include <string>
#include <vector>

namespace refract::testing {

using Tensors = std::vector<at::Tensor>;

// The weighted sum of all outputs, one number that depends on every element.
inline at::Tensor weighted_sum(const Tensors& outputs, const Tensors& weights) {
  at::Tensor total;
  for (size_t i = 0; i < outputs.size(); ++i) {
    const at::Tensor part = outputs[i].mul(weights[i]).sum();
    total = total.defined() ? total.add(part) : part;
  }
  return total;
}

// `f` maps the inputs (float64, contiguous, few elements) to its outputs. Every element of every
// input's gradient must agree with (f(x + h) - f(x - h)) / 2h.
inline void expect_gradients(const std::function<Tensors(const Tensors&)>& f, Tensors inputs,
                             const std::string& what, double tolerance = 1e-6) {
  constexpr double h = 1e-5;
  for (auto& input : inputs) {
    ASSERT_EQ(input.scalar_type(), at::kDouble) << what;
    input = input.detach().clone().requires_grad_(true);
  }
  const Tensors outputs = f(inputs);
  Tensors weights;
  for (const auto& output : outputs) weights.push_back(at::rand(output.sizes(), output.options()));
  const auto gradients = torch::autograd::grad({weighted_sum(outputs, weights)}, inputs);
  at::NoGradGuard no_grad;
  for (size_t i = 0; i < inputs.size(); ++i) {
    ASSERT_TRUE(gradients[i].defined()) << what << ": input " << i << " has no gradient";
    ASSERT_EQ(gradients[i].sizes(), inputs[i].sizes()) << what << ": input " << i;
    const at::Tensor gradient = gradients[i].to(at::kCPU).contiguous();
    at::Tensor flat = inputs[i].detach().view(-1);
    for (int64_t j = 0; j < flat.numel(); ++j) {
      const double kept = flat[j].item<double>();
      flat[j].fill_(kept + h);
      const double up = weighted_sum(f(inputs), weights).item<double>();
      flat[j].fill_(kept - h);
      const double down = weighted_sum(f(inputs), weights).item<double>();
      flat[j].fill_(kept);
      const double expected = (up - down) / (2 * h);
      EXPECT_NEAR(gradient.data_ptr<double>()[j], expected,
                  tolerance * std::max(1.0, std::abs(expected)))
          << what << ": input " << i << ", element " << j;
    }
  }
}

}  // namespace refract::testing
