#include "analysis/matching/activations.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "core/error.h"
#include "model/dense.h"
#include "model/frozen_values.h"

namespace refract {
namespace {

using Inputs = std::map<std::string, at::Tensor>;  // [tokens, n]

// Plain projections that leave what they were given.
class Recorder : public Projections {
 public:
  Recorder(std::unique_ptr<Projections> inner, std::string name, Inputs& inputs)
      : inner_(std::move(inner)), name_(std::move(name)), inputs_(inputs) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    inputs_[name_] = x.reshape({-1, x.size(-1)});
    return inner_->forward(context, x);
  }

 private:
  std::unique_ptr<Projections> inner_;
  std::string name_;
  Inputs& inputs_;
};

class RecordingFactory : public LayerFactory {
 public:
  explicit RecordingFactory(Inputs& inputs) : inputs_(inputs) {}
  std::unique_ptr<Projections> projections(Build build, const ProjectionSpec& spec) const override {
    return std::make_unique<Recorder>(dense_.projections(build, spec), spec.members.front().name,
                                      inputs_);
  }
  std::unique_ptr<AttentionCore> attention(Build build, const AttentionSpec& spec) const override {
    return dense_.attention(build, spec);
  }

 private:
  DenseFactory dense_;
  Inputs& inputs_;
};

// A copy of a dense model whose layers' inputs can be looked at.
struct Recorded {
  explicit Recorded(Decoder& model) : copy(model.config(), RecordingFactory(inputs)) {
    copy.allocate(at::kCPU, at::kFloat);
    if (copy.arena().layout() != model.arena().layout())
      fail("activations can be matched for dense models only");
    set_all_values(copy.arena(), all_values(model.arena()));
    copy.isolate_documents(model.document_token());
  }
  Inputs inputs;
  Decoder copy;
};

void add(CrossStatistics& s, const at::Tensor& a, const at::Tensor& b) {
  const at::Tensor x = a.to(at::kDouble), y = b.to(at::kDouble);
  if (!s.products.defined()) {
    s.sum_a = at::zeros({x.size(1)}, x.options());
    s.sum_b = at::zeros_like(s.sum_a);
    s.squares_a = at::zeros_like(s.sum_a);
    s.squares_b = at::zeros_like(s.sum_a);
    s.products = at::zeros({x.size(1), x.size(1)}, x.options());
  }
  s.tokens += x.size(0);
  s.sum_a.add_(x.sum(0));
  s.sum_b.add_(y.sum(0));
  s.squares_a.add_(x.square().sum(0));
  s.squares_b.add_(y.square().sum(0));
  s.products.add_(at::matmul(x.t(), y));
}

}  // namespace

at::Tensor CrossStatistics::correlation() const {
  const auto n = static_cast<double>(tokens);
  const auto deviation = [&](const at::Tensor& sum, const at::Tensor& squares) {
    return squares.div(n).sub(sum.div(n).square()).clamp_min(0).sqrt();
  };
  const at::Tensor covariance = products.div(n).sub(at::outer(sum_a.div(n), sum_b.div(n)));
  const at::Tensor scale = at::outer(deviation(sum_a, squares_a), deviation(sum_b, squares_b));
  // Differences of large sums leave noise where a feature never moves.
  return at::where(scale.gt(1e-12), covariance.div(scale.clamp_min(1e-12)), at::zeros_like(scale));
}

at::Tensor CrossStatistics::products_less(const at::Tensor& a, const at::Tensor& b) const {
  return products.sub(at::outer(a, sum_b))
      .sub(at::outer(sum_a, b))
      .add(at::outer(a, b), static_cast<double>(tokens));
}

std::map<std::string, CrossStatistics> cross_statistics(Decoder& a, Decoder& b,
                                                        const TokenStream& stream, int64_t context,
                                                        int64_t windows) {
  constexpr int64_t kTokensPerBatch = 4096;
  const at::NoGradGuard no_grad;
  Recorded of_a(a), of_b(b);
  std::map<std::string, CrossStatistics> all;
  windows = std::min(windows, (stream.size() - 1) / context);
  if (windows < 1)
    fail("the corpus has {} tokens, less than one window of {}", stream.size(), context);
  const int64_t together = std::max<int64_t>(1, kTokensPerBatch / context);
  for (int64_t first = 0; first < windows; first += together) {
    const int64_t count = std::min(together, windows - first);
    at::Tensor tokens = at::empty({count, context}, at::TensorOptions().dtype(at::kInt));
    stream.read(first * context,
                {tokens.mutable_data_ptr<int32_t>(), static_cast<size_t>(count * context)});
    of_a.copy.hidden({}, tokens);
    of_b.copy.hidden({}, tokens);
    for (const auto& [name, input] : of_a.inputs) add(all[name], input, of_b.inputs.at(name));
  }
  return all;
}

}  // namespace refract
