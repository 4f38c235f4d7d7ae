// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685, section 4.1): y = f(x) + s (drop(x) A^T)
// B^T with f a frozen layer of any kind, A [r, in], B [out, r] and s = alpha / r. B starts at zero,
// so that the first output is the frozen layer's, and A normal with the variance 1 / (3 in) of
// PEFT's uniform start.
#include <ATen/ops/matmul.h>

#include <cmath>

#include "core/random.h"
#include "model/dense.h"
#include "ops/dense/activation/dropout.h"
#include "ops/dense/linear/linear.h"
#include "transforms/inner_kind.h"

namespace refract {
namespace {

struct LoraSettings {
  int64_t r = 8;
  double alpha = 16;
  double dropout = 0;
};

class LoraLinear : public LinearLayer {
 public:
  LoraLinear(Build build, const LinearSpec& spec, const LoraSettings& settings,
             std::unique_ptr<LinearLayer> base)
      : settings_(settings), base_(std::move(base)), arena_(build.arena), spec_(spec) {
    const double std = 1 / std::sqrt(3.0 * static_cast<double>(spec.in_features));
    a_ = arena_.declare({spec.name + ".lora_A.weight",
                         {settings.r, spec.in_features},
                         Init::normal(std),
                         true,
                         true});
    b_ = arena_.declare(
        {spec.name + ".lora_B.weight", {spec.out_features, settings.r}, Init::zeros(), true, true});
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    at::Tensor input = x;
    if (context.training && settings_.dropout > 0) {
      input =
          dropout(x, settings_.dropout, static_cast<int64_t>(context.seed),
                  static_cast<int64_t>(stream_id("lora:" + spec_.name)), element_clock(context, x));
    }
    const at::Tensor inner = fused_linear(input, arena_.leaf(a_)).mul(scale());
    return base_->forward(context, x).add(fused_linear(inner, arena_.leaf(b_)));
  }

  void initialize(uint64_t seed) override { base_->initialize(seed); }
  double take_over(const at::Tensor& weight) override { return base_->take_over(weight); }
  bool computes_merged() const override { return base_->computes_merged(); }
  at::Tensor merged() const override {
    at::Tensor below = base_->merged();
    if (!below.defined()) return below;
    return below.add(at::matmul(arena_.value(b_), arena_.value(a_)), scale());
  }
  int64_t multiplications() const override {
    const int64_t in = spec_.in_features, out = spec_.out_features;
    return multiplications_of(*base_, in, out) + settings_.r * (in + out);
  }

 private:
  double scale() const { return settings_.alpha / static_cast<double>(settings_.r); }

  LoraSettings settings_;
  std::unique_ptr<LinearLayer> base_;
  ParameterArena& arena_;
  LinearSpec spec_;
  Parameter *a_, *b_;
};

class Lora : public Kind {
 public:
  void describe(Fields& fields) override {
    fields.add("r", settings_.r, "rank of the adapter", {.min = 1});
    fields.add("alpha", settings_.alpha, "the adapter's product is scaled by alpha / r",
               {.min = 0, .open_min = true});
    fields.add("dropout", settings_.dropout, "dropout on the adapter's input, in training",
               {.min = 0, .max = 0.99});
    base_.describe(fields, "the kind of the frozen layer: a name, or a table with its parameters");
  }
  void check(const std::string& where) const override { base_.check(where); }
  bool transforms_linear() const override { return true; }
  void check_shape(const LinearSpec& spec) const override {
    if (const Kind* below = base_.get()) below->check_shape(spec);
  }
  std::unique_ptr<LinearLayer> linear(Build build, const LinearSpec& spec) const override {
    const Kind* below = base_.get();
    return std::make_unique<LoraLinear>(
        build, spec, settings_,
        below ? below->linear(build, spec) : std::make_unique<DenseLinear>(build, spec));
  }

 private:
  LoraSettings settings_;
  InnerKind base_;  // dense where none is named
};

}  // namespace

REFRACT_KIND(lora, Lora, "low-rank adapters beside a frozen layer of any kind");

}  // namespace refract
