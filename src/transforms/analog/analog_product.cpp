#include "transforms/analog/analog_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pad.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/random.h"
#include "model/dense.h"
#include "ops/numeric/normal_noise.h"
#include "ops/numeric/tiles/tile.h"
#include "transforms/analog/chip.h"
#include "transforms/analog/devices.h"
#include "transforms/analog/input_range.h"
#include "transforms/analog/sram_product.h"
#include "transforms/analog/surrogate.h"
#include "transforms/analog/tiles.h"
#include "transforms/media/medium_layers.h"
#include "transforms/media/observer.h"
#include "transforms/media/product_site.h"

namespace refract {
namespace {

constexpr int64_t kFineBits = 16;  // what an observer takes a range without a converter for

at::Tensor in_wide_type(const at::Tensor& x) {
  return x.to(x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

// A weight as tiles hold it.
struct Held {
  at::Tensor used;     // [N, K] in the type that is computed in; undefined: the weight itself
  at::Tensor largest;  // g, [tiles, N]
  at::Tensor out;      // what a tile's output is multiplied by, [tiles, N]
  bool training = false;
  Chip chip;
};

class AnalogProduct : public MediumProduct {
 public:
  AnalogProduct(Build build, const LinearSpec& spec, const AnalogParameters& parameters)
      : p_(parameters),
        name_(spec.name),
        grid_(spec.in_features, spec.out_features, parameters),
        range_(build, spec, parameters) {
    for (int64_t t = 0; t < grid_.tiles(); ++t) {
      noise_.out.push_back(stream_id(fmt::format("{}.tile{}.out", spec.name, t)));
      noise_.reading.push_back(stream_id(fmt::format("{}.tile{}.reading", spec.name, t)));
    }
  }

  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    if (medium_observer()) return dense_product(observed(x), weight);
    const Chip chip = chip_of();
    const Held& held = hold(context, weight, chip);
    if (p_.x_bits == 0 && !range_.fixed() && linear_outputs() && !held.used.defined())
      return dense_product(x, weight);
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = weight.size(0);
    at::Tensor y, r;
    {
      const at::NoGradGuard no_grad;
      const at::Tensor rows = x.detach().reshape({-1, x.size(-1)});
      r = range_.of(context, in_wide_type(rows), grid_);
      y = linear_outputs()
              ? dense_product(converted(rows, r), effective(held, weight.detach())).view(sizes)
              : tiled(context, rows, r, held, weight.detach(), x.size(0)).view(sizes);
    }
    return surrogate(context, y.to(x.scalar_type()), x, weight, held,
                     range_.fixed() ? r : at::Tensor());
  }

  void initialize() { range_.initialize(); }

 private:
  // Whether a tile's outputs may be added before they are looked at: one product does then.
  bool linear_outputs() const {
    return p_.adc_bits == 0 && p_.out_bound == 0 && p_.out_noise == 0 && p_.read_noise == 0 &&
           p_.ir_drop == 0;
  }

  Chip chip_of() const {
    if (const Chip* chip = chip_in_scope()) return chip->ideal ? Chip{true} : *chip;
    return {false, p_.chip, p_.time};
  }

  // ---- The weight

  const Held& hold(const ForwardContext& context, const at::Tensor& weight, const Chip& chip) {
    const bool stale = context.weights_changed || !held_.largest.defined() ||
                       held_.training != context.training ||
                       (!context.training && !(held_.chip == chip));
    if (stale) {
      const at::NoGradGuard no_grad;
      held_ = held(context, weight.detach(), chip);
    }
    return held_;
  }

  Held held(const ForwardContext& context, const at::Tensor& weight, const Chip& chip) {
    Held made;
    made.training = context.training;
    made.chip = chip;
    const at::Tensor plain = in_wide_type(weight);
    at::Tensor w = plain;
    if (p_.w_clip > 0) {
      const at::Tensor limit = w.std().mul_(p_.w_clip);
      w = at::clamp(w, limit.neg(), limit);
    }
    made.largest = made.out = grid_.largest_weights(w, p_.w_scale);
    if (p_.w_bits > 0) {
      const at::Tensor largest = grid_.for_weights(made.largest);
      w = analog_op::in_steps(w, largest, p_.w_bits)
              .div_(analog_op::steps_of(p_.w_bits))
              .mul_(largest);
    }
    if (context.training) {
      w = in_training(context, w, made.largest);
    } else if (p_.preset != "ideal" && !chip.ideal) {
      w = on_chip(w, chip, made);
    }
    if (!w.is_same(plain)) made.used = w.to(weight.scalar_type());
    return made;
  }

  at::Tensor in_training(const ForwardContext& context, at::Tensor w, const at::Tensor& largest) {
    const at::Tensor clock = weight_clock(context, w);
    const auto draw = [&](const at::Tensor& like, const std::string& role) {
      return normal_noise(like, static_cast<int64_t>(context.seed),
                          static_cast<int64_t>(stream_id(name_ + ".weight." + role)), clock);
    };
    if (p_.train_programming && p_.preset != "ideal") {
      const at::Tensor per_weight = grid_.for_weights(device_range(w, largest));
      w = program_weights(w.div(per_weight), devices(0), draw).programmed.mul(per_weight);
    }
    if (p_.w_noise == 0 || (p_.train_programming && p_.preset == "gaussian")) return w;
    const at::Tensor most = noise_range(w, largest);
    return draw(w, "noise")
        .to(w.scalar_type())
        .mul_(grid_.for_weights(most))
        .mul_(p_.w_noise)
        .add_(w);
  }

  at::Tensor on_chip(const at::Tensor& w, const Chip& chip, Held& made) const {
    const auto options = at::TensorOptions().dtype(at::kLong).device(w.device());
    const at::Tensor zero = at::zeros({}, options);
    // Any other time has other draws: its bits (-0 has those of 0) are the clock.
    const at::Tensor seconds = at::full({}, std::bit_cast<int64_t>(chip.time + 0.0), options);
    const auto draw = [&](const at::Tensor& like, const std::string& role) {
      const at::Tensor clock = at::stack({role.ends_with("reading") ? seconds : zero, zero});
      return normal_noise(like, chip.number,
                          static_cast<int64_t>(stream_id(name_ + ".chip." + role)), clock);
    };
    const at::Tensor per_weight = grid_.for_weights(device_range(w, made.largest));
    const ProgrammedWeights found = program_weights(w.div(per_weight), devices(chip.time), draw);
    const at::Tensor now = found.now.mul(per_weight);
    if (p_.drift_compensation && !found.now.is_same(found.programmed)) {
      const at::Tensor before = grid_.mean_weights(found.programmed.mul(per_weight));
      const at::Tensor after = grid_.mean_weights(now);
      const at::Tensor holds = before.gt(0).logical_and_(after.gt(0));  // else there is no factor
      made.out = at::where(holds, made.largest.mul(before).div_(after), made.largest);
    }
    return now;
  }

  // What w_noise is a share of, [tiles, N].
  at::Tensor noise_range(const at::Tensor& w, const at::Tensor& largest) const {
    return p_.w_noise_per == p_.w_scale ? largest : grid_.largest_weights(w, p_.w_noise_per);
  }

  // The weight of a device's 1, [tiles, N].
  at::Tensor device_range(const at::Tensor& w, const at::Tensor& largest) const {
    return p_.preset == "gaussian" ? noise_range(w, largest) : largest;
  }

  DeviceModel devices(double time) const {
    return {p_.preset, time, p_.device_noise, p_.w_noise, p_.programming_noise};
  }

  // ---- The product

  // What x is multiplied by in one product: drift's compensation, which tiles apply to their
  // outputs, is in the weight.
  at::Tensor effective(const Held& held, const at::Tensor& weight) const {
    const at::Tensor& used = held.used.defined() ? held.used : weight;
    if (held.out.is_same(held.largest)) return used;
    const at::Tensor factor = grid_.for_weights(held.out.div(held.largest));
    return used.mul(factor.to(used.scalar_type()));
  }

  at::Tensor converted(const at::Tensor& rows, const at::Tensor& r) const {
    const at::Tensor limits = grid_.for_inputs(r);
    return analog_op::in_steps(in_wide_type(rows), limits, p_.x_bits)
        .mul_(limits.div(analog_op::steps_of(p_.x_bits)))
        .to(rows.scalar_type());
  }

  at::Tensor tiled(const ForwardContext& context, const at::Tensor& rows, const at::Tensor& r,
                   const Held& held, const at::Tensor& weight, int64_t batch) {
    const at::Tensor y = at::zeros({batch, rows.size(0) / batch, weight.size(0)},
                                   rows.options().dtype(wide_type(rows)));
    noise_.seed = static_cast<int64_t>(context.seed);
    noise_.clock = activation_clock(context, y);
    const at::Tensor& used = held.used.defined() ? held.used : weight;
    add_tiled_product({grid_, p_, rows, used, r, held.largest, held.out, noise_},
                      y.view({-1, weight.size(0)}));
    return y;
  }

  static at::ScalarType wide_type(const at::Tensor& x) {
    return x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  }

  // A range decays once in a step, however many micro-batches it has.
  at::Tensor surrogate(const ForwardContext& context, const at::Tensor& y, const at::Tensor& x,
                       const at::Tensor& weight, const Held& held, const at::Tensor& r) const {
    Surrogate of;
    of.x = x;
    of.weight = weight;
    if (held.used.defined()) of.used = effective(held, weight);
    if (r.defined()) of.limits = grid_.for_inputs(r).to(x.scalar_type());
    of.range = range_.parameter();
    of.rows = grid_.rows();
    of.decay = context.weights_changed ? p_.x_decay : 0;
    return with_surrogate_gradient(y, of);
  }

  // Shows the input to the observer. A tile's inputs are a row where tiles have running ranges;
  // else a row is what one vector gives one tile.
  at::Tensor observed(const at::Tensor& x) {
    const bool running = range_.buffer().defined();
    if (p_.x_bits == 0 && !running) return x;
    const at::NoGradGuard no_grad;
    const int64_t tiles = grid_.tiles(), width = tiles * grid_.rows(), inputs = x.size(-1);
    const at::Tensor flat = in_wide_type(x.detach().reshape({-1, inputs}));
    const at::Tensor parts = (width > inputs ? at::pad(flat, {0, width - inputs}) : flat)
                                 .view({-1, tiles, grid_.rows()});
    Observation seen;
    seen.module = name_;
    seen.role = "x";
    seen.values =
        running ? parts.transpose(0, 1).reshape({tiles, -1}) : parts.reshape({-1, grid_.rows()});
    seen.by_row = true;
    seen.range = range_.buffer();
    seen.levels = (int64_t{1} << (p_.x_bits > 0 ? p_.x_bits : kFineBits)) - 1;
    seen.quantize = [this](const at::Tensor& values) { return quantized_rows(values); };
    const at::Tensor result = medium_observer()->see(seen);
    const at::Tensor back =
        running ? result.view({tiles, -1, grid_.rows()}).transpose(0, 1) : result;
    return back.reshape({-1, width}).narrow(1, 0, inputs).reshape(x.sizes()).to(x.scalar_type());
  }

  at::Tensor quantized_rows(const at::Tensor& values) {
    at::Tensor r = values.abs().amax(-1, true);
    r = r.masked_fill(r.eq(0), 1);
    if (const at::Tensor range = range_.buffer(); range.defined()) {
      const at::Tensor ends = range.to(r.scalar_type());
      const at::Tensor set = ends.select(-1, 0).le(ends.select(-1, 1)).unsqueeze(-1);
      const at::Tensor own = ends.abs().amax(-1, true);
      r = r.where(set.logical_not(), own);
    }
    const double n = analog_op::steps_of(p_.x_bits);
    return analog_op::in_steps(values, r, p_.x_bits).mul_(r.div(n));
  }

  AnalogParameters p_;
  std::string name_;
  TileGrid grid_;
  InputRange range_;
  TileNoise noise_;
  Held held_;
};

class AnalogLinear : public DenseLinear {
 public:
  AnalogLinear(Build build, const LinearSpec& spec, const AnalogParameters& parameters)
      : DenseLinear(build, spec), product_(build, spec, parameters) {}
  at::Tensor forward(const ForwardContext& context, const at::Tensor& x) override {
    return product_.multiply(context, x, weight());
  }
  void initialize(uint64_t /*seed*/) override { product_.initialize(); }
  bool computes_merged() const override { return false; }

 private:
  AnalogProduct product_;
};

}  // namespace

std::unique_ptr<MediumProduct> make_analog_product(Build build, const LinearSpec& spec,
                                                   const AnalogParameters& parameters) {
  if (parameters.digital()) return make_sram_product(spec, parameters);
  if (parameters.learns_range()) {
    fail_usage(
        "'{}': an analog layer below another kind has no parameters, so x_range = \"learned\" "
        "can't be there; take \"ema\" or \"dynamic\"",
        spec.name);
  }
  return std::make_unique<AnalogProduct>(build, spec, parameters);
}

std::unique_ptr<LinearLayer> make_analog_linear(Build build, const LinearSpec& spec,
                                                const AnalogParameters& parameters) {
  if (parameters.digital())
    return std::make_unique<MediumLinear>(build, spec, make_sram_product(spec, parameters));
  return std::make_unique<AnalogLinear>(build, spec, parameters);
}

}  // namespace refract
