#include "transforms/guided.h"

#include "core/error.h"
#include "ops/dense/linear/linear.h"
#include "ops/structured/blend.h"
#include "transforms/kind.h"

namespace refract {
namespace {

class GuidedLinear : public LinearLayer {
 public:
  GuidedLinear(Build build, const LinearSpec& spec, std::unique_ptr<LinearLayer> inner)
      : spec_(spec), inner_(std::move(inner)), arena_(build.arena) {
    guide_ = arena_.declare_guide(
        {spec.name + ".guide", {spec.out_features, spec.in_features}, Init::zeros()});
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    at::Tensor y = inner_->forward(context, x);
    if (!context.guide.defined() || !arena_.has_guides()) return y;
    return blend(y, fused_linear(x, arena_.leaf(guide_)), context.guide);
  }

  void initialize(uint64_t seed) override {
    inner_->initialize(seed);
    start_guide();
  }
  double take_over(const at::Tensor& weight) override {
    const double error = inner_->take_over(weight);
    start_guide();
    return error;
  }
  at::Tensor merged() const override { return inner_->merged(); }
  bool computes_merged() const override { return inner_->computes_merged(); }

  int64_t multiplications() const override { return inner_->multiplications(); }
  int64_t guide_multiplications() const override {
    return arena_.has_guides() ? spec_.in_features * spec_.out_features : 0;
  }

 private:
  void start_guide() {
    if (!arena_.has_guides()) return;
    const at::Tensor merged = inner_->merged();
    if (!merged.defined()) {
      fail(
          "'{}' has no dense weight that a guide could start from; leave self_guided.mode = "
          "\"none\"",
          spec_.name);
    }
    arena_.value(guide_).copy_(merged);
  }

  LinearSpec spec_;
  std::unique_ptr<LinearLayer> inner_;
  ParameterArena& arena_;
  Parameter* guide_;  // gone once the arena has no guides
};

}  // namespace

std::unique_ptr<LinearLayer> make_guided(Build build, const LinearSpec& spec,
                                         std::unique_ptr<LinearLayer> inner) {
  return std::make_unique<GuidedLinear>(build, spec, std::move(inner));
}

std::vector<std::string> guided_kinds() {
  std::vector<std::string> names;
  for (const KindEntry& entry : registered_kinds()) {
    if (entry.make()->takes_guide()) names.push_back(entry.name);
  }
  return names;
}

}  // namespace refract
