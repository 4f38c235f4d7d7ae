#include "transforms/optical/optical_medium.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/linear.h>

#include <optional>
#include <utility>
#include <vector>

#include "ops/optical/linear/linear.h"
#include "ops/optical/quantize/quantize.h"
#include "transforms/media/observer.h"
#include "transforms/optical/granular_product.h"
#include "transforms/optical/straight_quantize.h"

namespace refract {
namespace {

using Buffer = BufferStore::Buffer;

const at::Tensor& tensor_of(const Buffer* buffer) {
  static const at::Tensor none;
  return buffer ? buffer->tensor : none;
}

at::Tensor wide(const at::Tensor& x) {
  return x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

// One range per tensor: the op, which has kernels.
class WholeProduct : public MediumProduct {
 public:
  WholeProduct(Build build, const LinearSpec& spec, OpticalParameters parameters)
      : spec_(spec),
        parameters_(std::move(parameters)),
        x_(declare_range(build, spec.name + ".x_range")),
        w_(declare_range(build, spec.name + ".w_range")),
        out_(declare_range(build, spec.name + ".out_range")) {}

  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    if (parameters_.q_bypass) return at::linear(x, weight);
    if (medium_observer()) {
      const at::Tensor seen = observed_input(parameters_, spec_.name, x, x_->tensor);
      return observed_product(parameters_, spec_.name, seen, weight,
                              {x_->tensor, w_->tensor, out_->tensor});
    }
    OpticalSettings settings = optical_settings(parameters_, context, {spec_.name});
    settings.ranges_set = ranges_set_;
    const bool fresh = context.weights_changed || !encoded_.used.defined() ||
                       (context.training && !encoded_in_training_);
    if (fresh) {
      const at::NoGradGuard no_grad;
      encoded_ = optical_encode(weight.detach(), {w_->tensor}, {spec_.out_features}, settings);
      encoded_in_training_ = context.training;
    }
    const at::Tensor y =
        optical_linear(x, weight, std::nullopt, x_->tensor, {w_->tensor}, {out_->tensor},
                       {spec_.out_features}, encoded_.list(), fresh, settings);
    ranges_set_ |= context.training;
    return y;
  }

 private:
  LinearSpec spec_;
  OpticalParameters parameters_;
  Buffer *x_, *w_, *out_;
  OpticalOperand encoded_;  // the weight
  bool encoded_in_training_ = false;
  bool ranges_set_ = false;  // by a training call of ours
};

// Rows with ranges of their own, and ranges that are learned.
class FineProduct : public MediumProduct {
 public:
  FineProduct(Build build, const LinearSpec& spec, OpticalParameters parameters)
      : spec_(spec), parameters_(std::move(parameters)) {
    if (parameters_.q_x_per == "tensor") x_ = declare_range(build, spec.name + ".x_range");
    if (parameters_.q_out_per == "tensor") out_ = declare_range(build, spec.name + ".out_range");
    if (parameters_.q_w_per == "tensor") {
      w_ = declare_range(build, spec.name + ".w_range");
    } else {
      w_ = declare_row_ranges(build, spec.name + ".w_range", {spec.out_features});
    }
    if (!parameters_.q_learn) return;
    std::vector<int64_t> of_w = {2};
    if (parameters_.q_w_per == "channel") of_w.insert(of_w.begin(), spec.out_features);
    x_clip_.emplace(build, spec.name + ".x_clip", std::vector<int64_t>{2});
    w_clip_.emplace(build, spec.name + ".w_clip", of_w);
    out_clip_.emplace(build, spec.name + ".out_clip", std::vector<int64_t>{2});
  }

  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    if (parameters_.q_bypass) return at::linear(x, weight);
    if (medium_observer()) {
      const at::Tensor seen = observed_input(parameters_, spec_.name, x, tensor_of(x_));
      return observed_product(parameters_, spec_.name, seen, weight,
                              {tensor_of(x_), w_->tensor, tensor_of(out_)});
    }
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = spec_.out_features;
    const at::Tensor rows = wide(x.reshape({-1, spec_.in_features}));
    return granular(context, rows, wide(weight), sizes).view(sizes).to(x.scalar_type());
  }

 private:
  at::Tensor granular(const ForwardContext& context, const at::Tensor& rows,
                      const at::Tensor& weight, const std::vector<int64_t>& sizes) {
    const OpticalSettings settings = optical_settings(parameters_, context, {spec_.name});
    GranularProduct how;
    how.levels = settings.levels;
    how.lut_min = settings.lut_min;
    how.operands = parameters_.by_operands();
    const bool records = how.operands && at::GradMode::is_enabled();
    at::Tensor seen_x, seen_w, seen_out;
    {
      // A range of the data at hand has a gradient where operands have one.
      const at::AutoGradMode mode(records);
      seen_x = x_ ? whole_range(rows) : row_ranges(rows);
      how.a_range = clipped(x_ ? set_or_seen(x_->tensor, seen_x) : seen_x, x_clip_);
      if (records || context.training || context.weights_changed || !weight_.defined()) {
        seen_w = parameters_.q_w_per == "tensor" ? whole_range(weight) : row_ranges(weight);
        how.b_range = clipped(set_or_seen(w_->tensor, seen_w), w_clip_);
        const at::NoGradGuard no_grad;
        weight_ = granular_quantize(weight, how.b_range, how.levels, how.lut_min);
      }
      if (out_clip_) how.out_factor = out_clip_->factor();
    }
    how.b_values = weight_;
    if (out_) how.out_range = out_->tensor.clone();
    how.xi = composite::optical_xi(sizes, rows.device(), settings.noise, settings.shared_noise,
                                   settings.clock, settings.seed, settings.streams[0]);
    if (how.xi.defined()) how.xi = how.xi.view({-1, spec_.out_features});
    const bool moves = context.training;
    at::Tensor y = granular_product(rows, weight, how, moves && out_ ? &seen_out : nullptr);
    if (moves) {
      const at::NoGradGuard no_grad;
      if (x_) move_ranges_(x_->tensor, seen_x, settings.smooth);
      if (out_) move_ranges_(out_->tensor, seen_out, settings.smooth);
      if (context.weights_changed) move_ranges_(w_->tensor, seen_w, settings.smooth);
    }
    return y;
  }

  static at::Tensor clipped(const at::Tensor& range, const std::optional<RangeFactor>& clip) {
    return clip ? scaled_range(range, clip->factor()) : range;
  }

  LinearSpec spec_;
  OpticalParameters parameters_;
  std::optional<RangeFactor> x_clip_, w_clip_, out_clip_;  // none: ranges are as they are
  Buffer *x_ = nullptr, *w_ = nullptr, *out_ = nullptr;    // null: of each row itself
  at::Tensor weight_;                                      // quantized
};

}  // namespace

std::unique_ptr<MediumProduct> make_optical_medium(Build build, const LinearSpec& spec,
                                                   const OpticalParameters& parameters) {
  if (parameters.granular()) return std::make_unique<FineProduct>(build, spec, parameters);
  return std::make_unique<WholeProduct>(build, spec, parameters);
}

at::Tensor observed_role(const OpticalParameters& parameters, const std::string& module,
                         const char* role, const at::Tensor& values, const at::Tensor& range,
                         double lut_min, const at::Tensor& fixed) {
  const at::NoGradGuard no_grad;
  Observation seen;
  seen.module = module;
  seen.role = role;
  seen.values = values;
  seen.by_row = fixed.defined() ? fixed.dim() > 1 : !range.defined() || range.dim() > 1;
  seen.range = range;
  seen.levels = parameters.q_levels;
  seen.lut_min = lut_min;
  seen.quantize = [&](const at::Tensor& of) {
    if (fixed.defined()) return granular_quantize(of, fixed, parameters.q_levels, lut_min);
    const at::Tensor own = seen.by_row ? row_ranges(of) : whole_range(of);
    return granular_quantize(of, range.defined() ? set_or_seen(range, own) : own,
                             parameters.q_levels, lut_min);
  };
  return medium_observer()->see(seen);
}

at::Tensor observed_input(const OpticalParameters& parameters, const std::string& module,
                          const at::Tensor& x, const at::Tensor& range) {
  const at::Tensor rows = wide(x.reshape({-1, x.size(-1)}));
  return observed_role(parameters, module, "x", rows, range, 0).view(x.sizes()).to(x.scalar_type());
}

at::Tensor observed_product(const OpticalParameters& parameters, const std::string& module,
                            const at::Tensor& observed_x, const at::Tensor& weight,
                            const OpticalRanges& ranges) {
  const at::Tensor rows = wide(observed_x.reshape({-1, observed_x.size(-1)}));
  const at::Tensor w =
      observed_role(parameters, module, "w", wide(weight), ranges.w, parameters.q_lut_min);
  std::vector<int64_t> sizes = observed_x.sizes().vec();
  sizes.back() = weight.size(0);
  return observed_role(parameters, module, "out", at::linear(rows, w), ranges.out, 0)
      .view(sizes)
      .to(observed_x.scalar_type());
}

}  // namespace refract
