#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/diag_embed.h>
#include <ATen/ops/linalg_eigh.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros_like.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "analysis/curvature/directions.h"
#include "analysis/curvature/lanczos.h"
#include "analysis/curvature/products.h"
#include "analysis/curvature/trace.h"
#include "analysis/curvature/vectors.h"
#include "support/small_models.h"

namespace refract {
namespace curvature_products_test {

using testing::make_decoder;
using testing::tokens_for;

ModelConfig tiny(ModelConfig config) {
  config.vocab_size = 7;
  config.hidden_size = 4;
  config.num_hidden_layers = 1;
  config.num_attention_heads = config.num_key_value_heads = 2;
  config.head_dim = 2;
  config.intermediate_size = 6;
  config.max_position_embeddings = 6;
  resolve(config, 0, 0);
  return config;
}

// A model of float64 and its loss over two batches of different sizes.
struct Tiny {
  explicit Tiny(const ModelConfig& config)
      : model(make_decoder(config, at::kDouble)), loss(*model, batches(config)) {
    const at::Tensor real = random_signs(*model, 1, "places").ne(0);
    places = at::nonzero(real).select(1, 0);
  }
  static std::vector<LossBatch> batches(const ModelConfig& config) {
    const at::Tensor tokens = tokens_for(config, 5, 6);
    std::vector<LossBatch> all;
    for (const auto& [first, count] : {std::pair<int64_t, int64_t>{0, 3}, {3, 2}}) {
      const at::Tensor part = tokens.narrow(0, first, count);
      all.push_back({part.narrow(1, 0, 5).contiguous(), part.narrow(1, 1, 5).contiguous(), {}});
    }
    return all;
  }
  // The matrix of an operator between parameters that are no padding.
  at::Tensor matrix(const LinearOperator& of) const {
    std::vector<at::Tensor> columns;
    for (int64_t i = 0; i < places.numel(); ++i) {
      at::Tensor unit = at::zeros_like(loss.weights());
      unit[places[i].item<int64_t>()] = 1;
      columns.push_back(of(unit).index_select(0, places));
    }
    return at::stack(columns, 1);
  }

  std::unique_ptr<Decoder> model;
  MeanLoss loss;
  at::Tensor places;  // in the flat vector
};

std::vector<std::pair<std::string, ModelConfig>> shapes() {
  ModelConfig untied = testing::small_gpt2();
  untied.tie_word_embeddings = false;
  return {{"gpt2", tiny(testing::small_gpt2())},
          {"gpt2, untied", tiny(untied)},
          {"llama", tiny(testing::small_llama())}};
}

double relative(const at::Tensor& a, const at::Tensor& b) {
  return length_of(a.sub(b).flatten()) / length_of(b.flatten());
}

// v^T H w by differences of the loss alone, which knows nothing of gradients.
double by_losses(MeanLoss& loss, const at::Tensor& v, const at::Tensor& w) {
  constexpr double kStep = 1e-3;
  const at::Tensor center = loss.weights().clone();
  const auto at_point = [&](double a, double b) {
    loss.move_to(center, v.mul(a).add(w, b), kStep);
    return loss.value();
  };
  const double sum = at_point(1, 1) - at_point(1, -1) - at_point(-1, 1) + at_point(-1, -1);
  loss.move_to(center, center, 0);
  return sum / (4 * kStep * kStep);
}

TEST(CurvatureProducts, HessianIsThatOfTheLoss) {
  for (const auto& [name, config] : shapes()) {
    Tiny tiny(config);
    CurvatureProducts products(tiny.loss);
    for (const char* draw : {"a", "b"}) {
      const at::Tensor v = random_signs(*tiny.model, 1, draw),
                       w = random_signs(*tiny.model, 2, draw);
      const at::Tensor unit_v = v.div(length_of(v)), unit_w = w.div(length_of(w));
      const at::Tensor product = products.hessian(unit_v);
      // Second differences of the loss err by 1e-6 of the fourth derivatives.
      EXPECT_NEAR(dot_of(product, unit_w), by_losses(tiny.loss, unit_v, unit_w),
                  1e-4 * length_of(product))
          << name;
      EXPECT_LT(products.hessian_error(v), 1e-6) << name;
      EXPECT_LT(relative(products.hessian(v), product.mul(length_of(v))), 1e-6) << name;
    }
  }
}

// J of the logits, column by column, and H_L of every token.
at::Tensor gauss_newton_matrix(Tiny& tiny) {
  constexpr double kStep = 1e-5;
  const at::NoGradGuard no_grad;
  const at::Tensor center = tiny.loss.weights().clone();
  const auto logits = [&](const at::Tensor& along, double step) {
    tiny.loss.move_to(center, along, step);
    std::vector<at::Tensor> parts;
    for (const LossBatch& batch : tiny.loss.batches())
      parts.push_back(tiny.model->logits(tiny.model->hidden({}, batch.inputs)).flatten(0, 1));
    return at::cat(parts);
  };
  std::vector<at::Tensor> columns;
  for (int64_t i = 0; i < tiny.places.numel(); ++i) {
    at::Tensor unit = at::zeros_like(center);
    unit[tiny.places[i].item<int64_t>()] = 1;
    columns.push_back(logits(unit, kStep).sub(logits(unit, -kStep)).div(2 * kStep));
  }
  const at::Tensor jacobian = at::stack(columns, 2);  // [tokens, V, P]
  const at::Tensor p = at::softmax(logits(center, 0), -1);
  const at::Tensor by_logits =
      at::diag_embed(p).sub(at::matmul(p.unsqueeze(2), p.unsqueeze(1)));  // [tokens, V, V]
  const at::Tensor weighted = at::matmul(by_logits, jacobian);
  return at::matmul(jacobian.flatten(0, 1).t(), weighted.flatten(0, 1))
      .div(static_cast<double>(tiny.loss.tokens()));
}

TEST(CurvatureProducts, GaussNewtonIsJacobiansAroundTheLosssHessian) {
  for (const auto& [name, config] : shapes()) {
    Tiny tiny(config);
    CurvatureProducts products(tiny.loss);
    const at::Tensor whole =
        tiny.matrix([&](const at::Tensor& v) { return products.gauss_newton(v); });
    EXPECT_LT(relative(whole, gauss_newton_matrix(tiny)), 1e-6) << name;
    EXPECT_LT(products.gauss_newton_error(random_signs(*tiny.model, 3, "v")), 1e-6) << name;
  }
}

TEST(CurvatureProducts, EigenvaluesAndTraceAreThoseOfTheWholeHessian) {
  Tiny tiny(shapes()[0].second);
  CurvatureProducts products(tiny.loss);
  const LinearOperator hessian = [&](const at::Tensor& v) { return products.hessian(v); };
  const at::Tensor whole = tiny.matrix(hessian);
  EXPECT_LT(relative(whole, whole.t()), 1e-6);
  const at::Tensor values = std::get<0>(at::linalg_eigh(whole.add(whole.t()).mul(0.5)));

  LanczosOptions options;
  options.tolerance = 1e-7;
  options.most_products = 300;
  const Spectrum found =
      largest_eigenvalues(hessian, random_signs(*tiny.model, 1, "start"), options);
  ASSERT_TRUE(found.converged);
  ASSERT_EQ(found.largest.size(), 5U);
  const double largest = values[-1].item<double>();
  for (int64_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(found.largest[static_cast<size_t>(i)].value,
                values[values.numel() - 1 - i].item<double>(), 1e-6 * largest);
  }
  EXPECT_LT(found.asymmetry, 1e-6);

  std::vector<double> samples;
  for (int probe = 0; probe < 200; ++probe) {
    const at::Tensor v = random_signs(*tiny.model, 1, "probe-" + std::to_string(probe));
    samples.push_back(dot_of(v, hessian(v)));
  }
  const TraceEstimate trace = trace_of(samples);
  const double exact = values.sum().item<double>();
  EXPECT_NEAR(trace.mean, exact, 4 * trace.standard_error);
  // Of Gaussian-like spread: 2 (|H|^2 - |diag H|^2) is the variance of one sample.
  const double off =
      whole.square().sum().item<double>() - whole.diagonal().square().sum().item<double>();
  EXPECT_NEAR(trace.standard_error / std::sqrt(2 * off / 200), 1, 0.3);
}

TEST(CurvatureProducts, LeaveTheWeightsAsTheyWere) {
  Tiny tiny(shapes()[2].second);
  const at::Tensor before = tiny.loss.weights().clone();
  CurvatureProducts products(tiny.loss);
  const at::Tensor v = random_signs(*tiny.model, 1, "v");
  products.hessian(v);
  products.gauss_newton(v);
  EXPECT_TRUE(before.equal(tiny.loss.weights()));
  EXPECT_EQ(length_of(products.hessian(at::zeros_like(v))), 0);
}

}  // namespace curvature_products_test
}  // namespace refract
