#include "transforms/analog/sram_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/pad.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/random.h"
#include "ops/numeric/normal_noise.h"
#include "transforms/analog/surrogate.h"
#include "transforms/analog/tiles.h"
#include "transforms/media/observer.h"
#include "transforms/media/product_site.h"

namespace refract {
namespace {

struct SramFormat {
  int exponent = 0, mantissa = 0;  // bits; without an exponent whole numbers
  int integer = 0;
};

SramFormat sram_format(const std::string& name) {
  if (name == "e4m3") return {4, 3, 0};
  if (name == "e5m2") return {5, 2, 0};
  if (name == "e8m7") return {8, 7, 0};
  if (name == "int8") return {0, 0, 8};
  if (name == "int4") return {0, 0, 4};
  return {};
}

class SramProduct : public MediumProduct {
 public:
  SramProduct(const LinearSpec& spec, const AnalogParameters& parameters)
      : p_(parameters), grid_(spec.in_features, spec.out_features, parameters) {
    for (int64_t t = 0; t < grid_.tiles(); ++t)
      streams_.push_back(stream_id(fmt::format("{}.tile{}.product", spec.name, t)));
  }

  at::Tensor multiply(const ForwardContext& context, const at::Tensor& x,
                      const at::Tensor& weight) override {
    if (medium_observer()) return dense_product(x, weight);
    std::vector<int64_t> sizes = x.sizes().vec();
    sizes.back() = weight.size(0);
    at::Tensor y;
    {
      const at::NoGradGuard no_grad;
      if (context.weights_changed || !weight_.defined())
        weight_ = held(weight.detach(), p_.w_format);
      const at::Tensor rows = held(x.detach().reshape({-1, x.size(-1)}), p_.x_format);
      y = p_.product_noise > 0 ? noisy(context, rows, x.size(0)).to(x.scalar_type())
                               : dense_product(rows, weight_);
      y = y.view(sizes);
    }
    Surrogate of;
    of.x = x;
    of.weight = weight;
    return with_surrogate_gradient(y, of);
  }

 private:
  at::Tensor held(const at::Tensor& x, const std::string& format) const {
    const bool is_double = x.scalar_type() == at::kDouble;
    return shared_exponent(is_double ? x : x.to(at::kFloat), grid_.rows(), format)
        .to(x.scalar_type());
  }

  at::Tensor noisy(const ForwardContext& context, const at::Tensor& rows, int64_t batch) const {
    const at::ScalarType type = rows.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    const at::Tensor y =
        at::zeros({batch, rows.size(0) / batch, weight_.size(0)}, rows.options().dtype(type));
    const at::Tensor clock = activation_clock(context, y), flat = y.view({-1, weight_.size(0)});
    for (int64_t t = 0; t < grid_.tiles(); ++t) {
      const auto part = [&](const at::Tensor& of) {
        return of.narrow(1, grid_.first(t), grid_.count(t)).to(type);
      };
      const at::Tensor z = at::mm(part(rows), part(weight_).t());
      const at::Tensor xi =
          normal_noise(z, static_cast<int64_t>(context.seed),
                       static_cast<int64_t>(streams_[static_cast<size_t>(t)]), clock);
      flat.add_(z.mul_(xi.mul(p_.product_noise).add_(1)));
    }
    return y;
  }

  AnalogParameters p_;
  TileGrid grid_;
  std::vector<uint64_t> streams_;
  at::Tensor weight_;  // as it is held
};

}  // namespace

at::Tensor shared_exponent(const at::Tensor& x, int64_t rows, const std::string& format) {
  const SramFormat f = sram_format(format);
  if (f.mantissa == 0 && f.integer == 0) return x;
  const int64_t inputs = x.size(1), tiles = (inputs + rows - 1) / rows;
  const at::Tensor whole = tiles * rows > inputs ? at::pad(x, {0, tiles * rows - inputs}) : x;
  const at::Tensor v = whole.view({x.size(0), tiles, rows});
  const at::Tensor largest = v.abs().amax(-1, true);
  at::Tensor step;
  double lo, hi;
  if (f.integer > 0) {
    hi = std::ldexp(1, f.integer - 1) - 1;
    lo = -hi;
    step = largest.div(hi);
    step.masked_fill_(step.eq(0), 1);
  } else {
    const double limit = std::ldexp(1, f.exponent - 1);
    hi = std::ldexp(1, f.mantissa) - 1;
    lo = -hi - 1;
    const at::Tensor e = largest.add(1e-8).log2_().ceil_().clamp_(-limit, limit - 1);
    step = at::pow(2, e.sub_(f.mantissa));
  }
  return v.div(step).round_().clamp_(lo, hi).mul_(step).view({x.size(0), -1}).narrow(1, 0, inputs);
}

double sram_bits(const std::string& format) {
  const SramFormat f = sram_format(format);
  if (f.integer > 0) return f.integer;
  return f.mantissa > 0 ? 1 + f.mantissa : 16;
}

std::unique_ptr<MediumProduct> make_sram_product(const LinearSpec& spec,
                                                 const AnalogParameters& parameters) {
  return std::make_unique<SramProduct>(spec, parameters);
}

}  // namespace refract
