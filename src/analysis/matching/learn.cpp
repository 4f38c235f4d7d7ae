#include "analysis/matching/learn.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "analysis/matching/scores.h"
#include "core/error.h"
#include "core/random.h"

namespace refract {
namespace {

constexpr int64_t kStepsPerAssignment =
    10;  // an assignment is slow and scores move little by little

// In fp32 on the device that computes.
NamedWeights moved_to(const NamedWeights& weights, at::Device device) {
  NamedWeights copy;
  for (const auto& [name, value] : weights) copy[name] = value.to(device, at::kFloat);
  return copy;
}

std::vector<at::Tensor> unit_scores_of(const NamedWeights& a, const NamedWeights& b,
                                       int64_t layers) {
  std::vector<at::Tensor> scores;
  for (int64_t layer = 0; layer < layers; ++layer) scores.push_back(unit_scores(a, b, layer));
  return scores;
}

// Adam (Kingma and Ba, arXiv 1412.6980).
class Adam {
 public:
  explicit Adam(std::vector<LearnedMaps::Free>& free) : free_(free) {
    for (const LearnedMaps::Free& one : free)
      moments_.emplace_back(at::zeros_like(one.value), at::zeros_like(one.value));
  }
  void step(double rate) {
    constexpr double kBeta1 = 0.9, kBeta2 = 0.99, kEps = 1e-8;
    const at::NoGradGuard no_grad;
    ++steps_;
    const double first = 1 - std::pow(kBeta1, steps_), second = 1 - std::pow(kBeta2, steps_);
    for (size_t i = 0; i < free_.size(); ++i) {
      const at::Tensor gradient = free_[i].leaf.grad();
      auto& [mean, square] = moments_[i];
      mean.mul_(kBeta1).add_(gradient, 1 - kBeta1);
      square.mul_(kBeta2).addcmul_(gradient, gradient, 1 - kBeta2);
      free_[i].value.addcdiv_(mean, square.div(second).sqrt().add_(kEps), -rate / first);
      free_[i].leaf.mutable_grad() = at::Tensor();
    }
  }

 private:
  std::vector<LearnedMaps::Free>& free_;
  std::vector<std::pair<at::Tensor, at::Tensor>> moments_;
  int64_t steps_ = 0;
};

struct Batch {
  at::Tensor tokens, targets;  // [B, T]
};

class Learning {
 public:
  Learning(Decoder& point, const TokenStream& stream, int64_t context, const LearnOptions& options)
      : point_(point),
        stream_(stream),
        context_(context),
        windows_(std::max<int64_t>(1, options.tokens / context)),
        random_(options.seed, "learned matching") {
    if (stream.size() <= context)
      fail("the corpus has {} tokens, less than one window of {}", stream.size(), context + 1);
  }

  Batch batch() {
    at::Tensor host = at::empty({windows_, context_ + 1}, at::TensorOptions().dtype(at::kInt));
    for (int64_t i = 0; i < windows_; ++i) {
      const auto begin =
          static_cast<int64_t>(random_.below(static_cast<uint64_t>(stream_.size() - context_)));
      stream_.read(begin, {host.mutable_data_ptr<int32_t>() + i * (context_ + 1),
                           static_cast<size_t>(context_ + 1)});
    }
    const at::Tensor tokens = host.to(point_.device());
    return {tokens.narrow(1, 0, context_).contiguous(), tokens.narrow(1, 1, context_).contiguous()};
  }

  // alpha A + (1 - alpha) B in the model that computes.
  void set_point(const NamedWeights& a, const NamedWeights& b, double alpha) {
    const at::NoGradGuard no_grad;
    for (const Parameter& parameter : point_.arena().parameters()) {
      point_.arena()
          .value(&parameter)
          .copy_(a.at(parameter.name).mul(alpha).add(b.at(parameter.name), 1 - alpha));
    }
    point_.arena().refresh_compute();
  }

  at::Tensor mean_loss(const Batch& batch) {
    return point_.loss({}, batch.tokens, batch.targets)
        .sum.div(static_cast<double>(batch.tokens.numel()));
  }

  double loss_at(const NamedWeights& a, const NamedWeights& b, double alpha, const Batch& batch) {
    const at::NoGradGuard no_grad;
    set_point(a, b, alpha);
    return mean_loss(batch).item<double>();
  }

  // The loss at a random point, and its gradient in the leaves that A and B come from.
  double step(const NamedWeights& a, const NamedWeights& b) {
    const double alpha = random_.uniform();
    set_point(a, b, alpha);
    at::Tensor(point_.arena().grads()).zero_();
    const at::Tensor loss = mean_loss(batch());
    loss.backward();
    std::vector<at::Tensor> outputs, gradients;
    for (const Parameter& parameter : point_.arena().parameters()) {
      const at::Tensor gradient = point_.arena().gradient(&parameter).to(at::kFloat);
      const auto add = [&](const at::Tensor& end, double share) {
        if (!end.requires_grad()) return;
        outputs.push_back(end);
        gradients.push_back(gradient.mul(share));
      };
      add(a.at(parameter.name), alpha);
      add(b.at(parameter.name), 1 - alpha);
    }
    torch::autograd::backward(outputs, gradients);
    return loss.item<double>();
  }

 private:
  Decoder& point_;
  const TokenStream& stream_;
  int64_t context_, windows_;
  RandomStream random_;
};

// One end of the path: its weights as they were, and what moves them.
struct End {
  End(const NamedWeights& weights, LearnedMaps* maps, at::Device device)
      : weights(moved_to(weights, device)), maps(maps) {
    if (maps) optimizer.emplace(maps->free());
  }
  NamedWeights now() const { return maps ? maps->apply(weights) : weights; }
  NamedWeights weights;
  LearnedMaps* maps;
  std::optional<Adam> optimizer;
};

}  // namespace

LearnReport learn_matching(Decoder& point, NamedWeights& a, NamedWeights& b,
                           const MapClasses& classes, const TokenStream& stream, int64_t context,
                           const LearnOptions& options) {
  const ModelConfig& config = point.config();
  const at::Device device = point.device();
  const int64_t layers = config.num_hidden_layers;
  LearnedMaps of_b(config, classes, unit_scores_of(a, b, layers), device);
  std::optional<LearnedMaps> of_a;
  if (options.both) of_a.emplace(config, classes, unit_scores_of(a, a, layers), device);
  End end_a(a, of_a ? &*of_a : nullptr, device), end_b(b, &of_b, device);
  Learning learning(point, stream, context, options);
  const Batch held = learning.batch();
  LearnReport report;
  report.before = learning.loss_at(end_a.weights, end_b.weights, 0.5, held);
  for (int64_t step = 0; step < options.steps; ++step) {
    for (const End* end : {&end_a, &end_b}) {
      if (end->maps && step % kStepsPerAssignment == 0) end->maps->assign_units();
    }
    const double loss = learning.step(end_a.now(), end_b.now());
    const double done = static_cast<double>(step) / static_cast<double>(options.steps);
    const double rate = options.rate * 0.5 * (1 + std::cos(std::numbers::pi * done));
    for (End* end : {&end_a, &end_b}) {
      if (end->optimizer) end->optimizer->step(rate);
    }
    if (options.done) options.done(step + 1, loss);
  }
  const at::NoGradGuard no_grad;
  report.after = learning.loss_at(end_a.now(), end_b.now(), 0.5, held);
  b = of_b.apply(b);
  if (of_a) a = of_a->apply(a);
  return report;
}

}  // namespace refract
