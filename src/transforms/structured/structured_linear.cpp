#include "transforms/structured/structured_linear.h"

#include <ATen/ops/eye.h>

#include <cmath>
#include <optional>
#include <set>

#include "core/log.h"
#include "model/backward/remake.h"
#include "model/dense.h"
#include "ops/dense/linear/linear.h"
#include "ops/dense/linear/linear_gelu.h"
#include "ops/structured/row_bias_gelu.h"
#include "ops/structured/transposed_copy.h"
#include "transforms/structured/factorization.h"

namespace refract {
namespace {

// Tensor cores work on tiles of 64; other sizes have been seen ten times slower.
constexpr int64_t kTile = 64;

class StructuredLinear : public LinearLayer {
 public:
  StructuredLinear(Build build, const LinearSpec& spec, StructuredForm form, std::string init,
                   const Kind* over)
      : spec_(spec),
        form_(std::move(form)),
        init_(std::move(init)),
        first_(build, factor_spec("V", form_.first), form_.first, over),
        second_(build, factor_spec("U", form_.second), form_.second, over) {}

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return second_.forward(context, inner(context, x), form_.second_layout);
  }

  // What the second factor multiplies.
  at::Tensor inner(const ForwardContext& context, const at::Tensor& x) {
    if (x.is_cuda() && !checked_) check_tiles();
    return first_.forward(context, x, form_.first_layout);
  }
  BlockFactor& second() { return second_; }
  const StructuredForm& form() const { return form_; }

  void initialize(uint64_t seed) override {
    first_.initialize(seed);
    second_.initialize(seed);
    if (init_ == "svd") {
      take_over(draw_normal({spec_.out_features, spec_.in_features}, seed,
                            "init:" + spec_.name + ".weight", spec_.init_std));
    } else if (init_ == "ortho") {
      first_.set(orthonormal(first_.value()));
      second_.set(orthonormal(second_.value()));
    }
  }

  double take_over(const at::Tensor& weight) override {
    const at::Tensor dense = weight.detach().to(at::kCPU, at::kDouble);
    const auto [first, second] = form_.project(dense);
    first_.set(first);
    second_.set(second);
    const at::Tensor approximation = merged();
    return approximation.defined() ? relative_error(approximation, dense) : 0;
  }

  bool computes_merged() const override {
    return first_.computes_value() && second_.computes_value();
  }
  at::Tensor merged() const override {
    const at::Tensor first = first_.value(), second = second_.value();
    if (!first.defined() || !second.defined()) return {};
    const at::Tensor identity = at::eye(spec_.in_features, first.options());
    return block_linear(block_linear(identity, first, form_.first_layout), second,
                        form_.second_layout)
        .t()
        .contiguous();
  }

  int64_t multiplications() const override {
    return first_.multiplications() + second_.multiplications();
  }

 private:
  LinearSpec factor_spec(const char* factor, const FactorShape& shape) const {
    LinearSpec spec = spec_;
    spec.name += std::string(".") + factor;
    spec.in_features = shape.blocks * shape.in;
    spec.out_features = shape.blocks * shape.out;
    spec.bias = false;
    const double inner = static_cast<double>(form_.second.in);
    if (init_ == "normal") {
      // The product's elements are sums of second.in products of two.
      spec.init_std = std::sqrt(spec_.init_std / std::sqrt(inner));
    } else if (init_ == "xavier") {
      spec.init_std = 1 / std::sqrt(static_cast<double>(shape.in));
    } else {
      spec.init_std = 1;  // of what is replaced by its orthonormal factor or not used
    }
    return spec;
  }

  void check_tiles() {
    checked_ = true;
    static std::set<int64_t> told;
    for (const int64_t size :
         {form_.first.in, form_.first.out, form_.second.in, form_.second.out}) {
      if (size % kTile == 0 || !told.insert(size).second) continue;
      log_warning(
          "'{}' multiplies by a factor of size {}, which is not a multiple of {}; on a GPU it "
          "may be several times slower",
          spec_.name, size, kTile);
    }
  }

  LinearSpec spec_;
  StructuredForm form_;
  std::string init_;
  BlockFactor first_, second_;
  bool checked_ = false;
};

// One layer with its bias and activation.
class StructuredProjections : public Projections {
 public:
  StructuredProjections(Build build, const ProjectionSpec& spec,
                        std::unique_ptr<StructuredLinear> layer)
      : layer_(std::move(layer)), activation_(spec.activation), arena_(build.arena) {
    const LinearSpec& member = spec.members[0];
    if (member.bias) bias_ = arena_.declare(bias_spec(member));
  }

  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    const at::Tensor inner = layer_->inner(context, x);
    if (layer_->form().second_layout.interleaved_out) return shuffled(inner);
    const auto bias = bias_ ? std::optional(arena_.leaf(bias_)) : std::nullopt;
    const at::Tensor weight = layer_->second().leaf();
    switch (activation_) {
      case Activation::kNone:
        return fused_linear(inner, weight, bias);
      case Activation::kGeluTanh:
        return linear_gelu(inner, weight, bias);
      default:
        return apply_epilogue(fused_linear(inner, weight), bias.value_or(at::Tensor()),
                              activation_);
    }
  }

 private:
  // The interleaved product leaves [features, rows]. GELU keeps that order, in which the next
  // projection reads it; an output that leaves the feed-forward gets its bias while it is put back
  // into the usual order.
  at::Tensor shuffled(const at::Tensor& inner) {
    BlockLayout layout = layer_->form().second_layout;
    layout.feature_major = true;
    const at::Tensor y = block_linear(inner, layer_->second().leaf(), layout);
    const at::Tensor rows = y.flatten(0, -2).t();
    const auto bias = bias_ ? std::optional(arena_.leaf(bias_)) : std::nullopt;
    if (activation_ == Activation::kGelu || activation_ == Activation::kGeluTanh) {
      return row_gelu(rows, bias).t().view(y.sizes());
    }
    return apply_epilogue(transposed_copy(rows, bias).view(y.sizes()), {}, activation_);
  }

  at::Tensor row_gelu(const at::Tensor& rows, const std::optional<at::Tensor>& bias) const {
    const bool tanh_form = activation_ == Activation::kGeluTanh;
    at::Tensor out = row_bias_gelu(rows, bias, tanh_form);
    if (frees_cheap()) {
      const auto own = bias ? std::optional(bias->detach()) : std::nullopt;
      can_remake(out, [rows = rows.detach(), own, tanh_form] {
        return row_bias_gelu(rows, own, tanh_form);
      });
    }
    return out;
  }

  std::unique_ptr<StructuredLinear> layer_;
  Activation activation_;
  ParameterArena& arena_;
  Parameter* bias_ = nullptr;
};

}  // namespace

std::unique_ptr<LinearLayer> make_structured_linear(Build build, const LinearSpec& spec,
                                                    StructuredForm form, const std::string& init,
                                                    const Kind* over) {
  return std::make_unique<StructuredLinear>(build, spec, std::move(form), init, over);
}

std::unique_ptr<Projections> make_structured_projections(Build build, const ProjectionSpec& spec,
                                                         StructuredForm form,
                                                         const std::string& init,
                                                         const std::string& kind) {
  const LinearSpec& member = spec.members[0];
  auto layer =
      std::make_unique<StructuredLinear>(build, member, std::move(form), init, /*over=*/nullptr);
  enter(build, member, kind, layer.get());
  return std::make_unique<StructuredProjections>(build, spec, std::move(layer));
}

}  // namespace refract
