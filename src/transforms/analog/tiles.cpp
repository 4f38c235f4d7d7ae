#include "transforms/analog/tiles.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/amax.h>
#include <ATen/ops/amin.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/pad.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/where.h>

#include <algorithm>

#include "ops/numeric/normal_noise.h"
#include "ops/numeric/tiles/tile.h"

namespace refract {
namespace {

constexpr double kWires = 1.75e-6;  // aihwkit's: 0.35 Ohm between devices of 5 uS

at::Tensor one_where_zero(const at::Tensor& x) {
  return at::where(x.gt(0), x, at::ones({}, x.options()));
}

at::Tensor padded(const at::Tensor& x, int64_t width) {
  return x.size(-1) == width ? x : at::pad(x, {0, width - x.size(-1)});
}

at::Tensor repeated(const at::Tensor& x, int64_t times, int64_t width) {
  return at::repeat_interleave(x, times, -1).narrow(-1, 0, width);
}

// a [M, R] b [N, R]^T, summed in fp32 where the type is a half one.
at::Tensor tile_sum(const at::Tensor& a, const at::Tensor& b) {
  const bool half = a.scalar_type() == at::kBFloat16 || a.scalar_type() == at::kHalf;
  if (half && a.is_cuda()) return at::mm(a, b.t(), at::kFloat);
  if (half) return at::mm(a.to(at::kFloat), b.to(at::kFloat).t());
  return at::mm(a, b.t());
}

// What one tile gives. `steps`: u is in units of 1 / steps.
class TileOutput {
 public:
  TileOutput(const TiledProduct& in, int64_t tile, const at::Tensor& u)
      : in_(in),
        p_(in.parameters),
        tile_(tile),
        u_(u),
        weight_(in.weight_NK.narrow(1, in.grid.first(tile), in.grid.count(tile))),
        inverse_(in.w_range_TN.select(0, tile).reciprocal()),
        steps_(analog_op::steps_of(in.parameters.x_bits)) {}

  // Adds it to y, with what it is multiplied by.
  void add_to(const at::Tensor& y) {
    z_ = tile_sum(u_, weight_);
    at::Tensor scale = inverse_of(steps_);
    AnalogConverter rest{p_.out_noise, p_.adc_bits, p_.out_bound, in_.noise.seed,
                         static_cast<int64_t>(in_.noise.out.at(static_cast<size_t>(tile_)))};
    if (p_.ir_drop > 0 || p_.read_noise > 0 || p_.adc_range == "vector") {
      z_.mul_(scale);
      scale = at::Tensor();
      if (p_.ir_drop > 0) drop();
      if (p_.read_noise > 0) add_reading_noise();
      if (p_.adc_range == "vector") {
        if (p_.out_noise > 0) z_.add_(noise(rest.stream), p_.out_noise);
        convert_by_vector();
        rest = {};
      }
    }
    const at::Tensor r = in_.x_range.narrow(-1, tile_, 1);  // [M, 1] or [1]
    analog_collect_(y, z_, optional_of(scale), r, in_.out_TN.select(0, tile_),
                    optional_of(in_.noise.clock), rest);
  }

 private:
  at::Tensor inverse_of(double steps) const { return steps == 1 ? inverse_ : inverse_.div(steps); }
  at::Tensor normalized(const at::Tensor& z, double steps) const {
    return z.mul_(inverse_of(steps));
  }

  at::Tensor noise(int64_t stream) const {
    return normal_noise(z_, in_.noise.seed, stream, in_.noise.clock);
  }

  void add_reading_noise() {
    const at::Tensor power =
        normalized(tile_sum(u_.square(), weight_.abs()), steps_ * steps_).sqrt_();
    const uint64_t stream = in_.noise.reading.at(static_cast<size_t>(tile_));
    z_.add_(power.mul_(noise(static_cast<int64_t>(stream))), p_.read_noise);
  }

  void drop() {
    const auto n = static_cast<double>(u_.size(1));
    const at::Tensor a =
        normalized(tile_sum(u_.abs(), weight_.abs()), steps_).mul_(kWires * p_.ir_drop * n);
    const at::Tensor c = a.mul(0.05).sub_(0.2).mul_(a).add_(0.5).mul_(a);
    const at::Tensor far = at::arange(u_.size(1), inverse_.options()).div_(n).neg_().add_(1);
    const at::Tensor share = far.square_().neg_().add_(1).to(u_.scalar_type());
    z_.sub_(normalized(tile_sum(u_.mul(share), weight_), steps_).mul_(c));
  }

  void convert_by_vector() {
    const double steps = std::ldexp(1, static_cast<int>(p_.adc_bits)) - 1;
    if (p_.out_bound > 0) z_.clamp_(-p_.out_bound, p_.out_bound);
    for (int64_t first = 0; first < z_.size(1); first += in_.grid.columns()) {
      const at::Tensor part = z_.narrow(1, first, std::min(in_.grid.columns(), z_.size(1) - first));
      const at::Tensor lo = part.amin(1, true), hi = part.amax(1, true);
      const at::Tensor step = one_where_zero(hi.sub(lo).div_(steps));
      part.sub_(lo).div_(step).round_().mul_(step).add_(lo);
    }
  }

  const TiledProduct& in_;
  const AnalogParameters& p_;
  int64_t tile_;
  const at::Tensor& u_;
  at::Tensor weight_, inverse_, z_;
  double steps_;
};

}  // namespace

TileGrid::TileGrid(int64_t inputs, int64_t outputs, const AnalogParameters& parameters)
    : inputs_(inputs),
      outputs_(outputs),
      rows_(parameters.tile_rows > 0 ? std::min(parameters.tile_rows, inputs) : inputs),
      columns_(parameters.tile_columns > 0 ? std::min(parameters.tile_columns, outputs) : outputs) {
}

at::Tensor TileGrid::by_tile(const at::Tensor& x, bool sum) const {
  const at::Tensor grouped = padded(x, tiles() * rows_).view({x.size(0), tiles(), rows_}).abs();
  return sum ? grouped.sum(-1) : grouped.amax(-1);
}

at::Tensor TileGrid::over_columns(const at::Tensor& of_tiles_TN, bool sum) const {
  const int64_t groups = (outputs_ + columns_ - 1) / columns_;
  const at::Tensor grouped =
      padded(of_tiles_TN, groups * columns_).view({tiles(), groups, columns_});
  return repeated(sum ? grouped.sum(-1) : grouped.amax(-1), columns_, outputs_);
}

at::Tensor TileGrid::largest_inputs(const at::Tensor& rows_MK) const {
  return one_where_zero(by_tile(rows_MK, false));
}

at::Tensor TileGrid::largest_weights(const at::Tensor& weight_NK, const std::string& per) const {
  at::Tensor largest = by_tile(weight_NK, false).t().contiguous();
  if (per == "tile") largest = over_columns(largest, false);
  if (per == "tensor") largest = largest.amax().expand_as(largest).contiguous();
  return one_where_zero(largest);
}

at::Tensor TileGrid::mean_weights(const at::Tensor& weight_NK) const {
  const at::Tensor one = at::ones({}, weight_NK.options()).expand_as(weight_NK);
  const auto total = [this](const at::Tensor& w) {
    return over_columns(by_tile(w, true).t().contiguous(), true);
  };
  return total(weight_NK).div_(total(one));
}

at::Tensor TileGrid::for_inputs(const at::Tensor& of_tiles) const {
  return repeated(of_tiles, rows_, inputs_);
}

at::Tensor TileGrid::for_weights(const at::Tensor& of_tiles_TN) const {
  return repeated(of_tiles_TN.t(), rows_, inputs_);
}

void add_tiled_product(const TiledProduct& in, const at::Tensor& y_MN) {
  const at::Tensor all = analog_inputs(in.x_MK, in.x_range, in.grid.rows(), in.parameters.x_bits);
  for (int64_t tile = 0; tile < in.grid.tiles(); ++tile) {
    const at::Tensor u = all.narrow(1, in.grid.first(tile), in.grid.count(tile));
    TileOutput(in, tile, u).add_to(y_MN);
  }
}

}  // namespace refract
