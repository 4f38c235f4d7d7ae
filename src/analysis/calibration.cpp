#include "analysis/calibration.h"

#include <ATen/ops/aminmax.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <tuple>
#include <vector>

#include "core/error.h"

namespace refract {
namespace {

constexpr int64_t kBins = 16384;
constexpr double kFinest = 1e-4, kWidest = 24;  // asinh(|x| / kFinest) < kWidest up to 1e6
constexpr int64_t kKeptPerRow = 4096;
constexpr int64_t kRowBins = 512;

// Values [R, n] with the number of each, and the width of the bin that it stands for.
struct Distribution {
  at::Tensor centers, counts, widths;  // double [R, n]
};

at::Tensor levels_of(const at::Tensor& x, const at::Tensor& lo, const at::Tensor& hi,
                     const QuantizerShape& shape) {
  const auto top = static_cast<double>(shape.levels - 1);
  return at::minimum(at::maximum(x, lo), hi).sub(lo).mul(top).div(hi.sub(lo).add(1e-8)).round();
}

at::Tensor quantized(const at::Tensor& x, const at::Tensor& lo, const at::Tensor& hi,
                     const QuantizerShape& shape) {
  const at::Tensor level = levels_of(x, lo, hi, shape);
  at::Tensor v = level.mul(hi.sub(lo).div(static_cast<double>(shape.levels - 1))).add(lo);
  if (shape.lut_min <= 0) return v.expand(x.sizes());
  const at::Tensor above = hi.mul(shape.lut_min), below = lo.abs().mul(-shape.lut_min);
  v = at::where(v.gt(0).logical_and(v.lt(above)), above, v);
  return at::where(v.lt(0).logical_and(v.gt(below)), below, v);
}

// Sum of squared errors [R]. Inside a bin that is wider than a level the error is that of rounding
// evenly spread values.
at::Tensor squared_error(const Distribution& d, const at::Tensor& lo, const at::Tensor& hi,
                         const QuantizerShape& shape) {
  const at::Tensor error = quantized(d.centers, lo, hi, shape).sub(d.centers).square();
  const at::Tensor step = hi.sub(lo).div(static_cast<double>(shape.levels - 1));
  const at::Tensor inside = d.centers.ge(lo).logical_and(d.centers.le(hi));
  const at::Tensor coarse = inside.logical_and(d.widths.gt(step));
  return at::where(coarse, step.square().div(12).expand(error.sizes()), error).mul(d.counts).sum(1);
}

// Divergence [R] of the clipped values' distribution, whose ends hold what was cut off, from what
// the levels say of those inside: within a level as many everywhere where there is any.
at::Tensor divergence(const Distribution& d, const at::Tensor& lo, const at::Tensor& hi,
                      const QuantizerShape& shape) {
  const at::Tensor below = d.centers.lt(lo), above = d.centers.gt(hi);
  const at::Tensor inside = below.logical_or(above).logical_not();
  const at::Tensor counts = d.counts.mul(inside), widths = d.widths.mul(counts.gt(0));
  const at::Tensor level = levels_of(d.centers, lo, hi, shape).to(at::kLong);
  const auto of_level = [&](const at::Tensor& what) {
    return at::zeros({what.size(0), shape.levels}, what.options())
        .scatter_add_(1, level, what)
        .gather(1, level);
  };
  const at::Tensor q = of_level(counts).mul(widths).div(of_level(widths).clamp_min(1e-300));
  const at::Tensor number = inside.to(at::kLong).cumsum(1);
  const at::Tensor first = inside.logical_and(number.eq(1));
  const at::Tensor last = inside.logical_and(number.eq(number.select(1, -1).unsqueeze(1)));
  const auto cut = [&](const at::Tensor& outside) { return d.counts.mul(outside).sum(1, true); };
  const at::Tensor p = counts.add(first.mul(cut(below))).add(last.mul(cut(above)));
  const auto share = [](const at::Tensor& n) { return n.div(n.sum(1, true).clamp_min(1e-300)); };
  const at::Tensor p_share = share(p), q_share = share(q).clamp_min(1e-12);
  return p_share.mul(p_share.clamp_min(1e-300).div(q_share).log())
      .sum(1)
      .masked_fill_(inside.any(1).logical_not(), std::numeric_limits<double>::infinity());
}

at::Tensor at_quantile(const Distribution& d, double share) {
  const at::Tensor sum = d.counts.cumsum(1), total = sum.select(1, -1).unsqueeze(1);
  const at::Tensor place = sum.lt(total.mul(share)).sum(1, true).clamp_max(d.centers.size(1) - 1);
  return d.centers.gather(1, place);
}

// The cheapest of ranges whose ends are shares of the widest range's: both first, then each.
at::Tensor cheapest(const Distribution& d, const at::Tensor& widest, const RangeSearch& search,
                    const QuantizerShape& shape) {
  const at::Tensor lo = widest.select(1, 0).unsqueeze(1), hi = widest.select(1, 1).unsqueeze(1);
  at::Tensor low_share = at::ones_like(lo), high_share = at::ones_like(hi), best;
  const auto attempt = [&](const at::Tensor& low, const at::Tensor& high) {
    const at::Tensor a = lo.mul(low), b = hi.mul(high);
    const at::Tensor cost =
        (search.method == "kl" ? divergence(d, a, b, shape) : squared_error(d, a, b, shape))
            .unsqueeze(1);
    const at::Tensor better = best.defined() ? cost.lt(best) : at::ones_like(cost).to(at::kBool);
    low_share = at::where(better, low, low_share);
    high_share = at::where(better, high, high_share);
    best = best.defined() ? at::minimum(best, cost) : cost;
  };
  // First both ends at one magnitude, as far as the values go: a far value on one side must not
  // shrink the other.
  const bool one = d.centers.size(0) == 1;
  const int cuts = one ? 64 : 16;
  const double ratio = one ? 0.87 : 0.94;  // down to 1.3e-4 of the largest value, and to 0.4
  const at::Tensor largest = at::maximum(lo.abs(), hi.abs());
  double share = 1;
  for (int i = 0; i < cuts; ++i, share *= ratio) {
    const at::Tensor cut = largest.mul(share);
    attempt(cut.div(lo.abs().clamp_min(1e-30)).clamp_max(1),
            cut.div(hi.abs().clamp_min(1e-30)).clamp_max(1));
  }
  for (int end = 0; end < 2; ++end) {
    const at::Tensor low = low_share, high = high_share;
    for (const double factor : {0.5, 0.7, 0.8, 0.9, 0.95, 1.05, 1.1, 1.2, 1.4, 2.0}) {
      if (end == 0) {
        attempt(low, high.mul(factor).clamp_max(1));
      } else {
        attempt(low.mul(factor).clamp_max(1), high);
      }
    }
  }
  return at::cat({lo.mul(low_share), hi.mul(high_share)}, 1);
}

// Even bins between each row's ends.
Distribution binned(const at::Tensor& rows, const at::Tensor& widest) {
  const at::Tensor lo = widest.select(1, 0).unsqueeze(1), hi = widest.select(1, 1).unsqueeze(1);
  const at::Tensor width = hi.sub(lo).div(static_cast<double>(kRowBins)).clamp_min(1e-30);
  const at::Tensor bin = rows.sub(lo).div(width).floor().clamp(0, kRowBins - 1).to(at::kLong);
  const std::vector<int64_t> sizes = {rows.size(0), kRowBins};
  const at::Tensor counts =
      at::zeros(sizes, rows.options()).scatter_add_(1, bin, at::ones_like(rows));
  const at::Tensor centers =
      at::arange(kRowBins, rows.options()).add(0.5).mul(width).add(lo).expand(sizes);
  return {centers, counts, width.expand(sizes)};
}

}  // namespace

void check_range_search(const RangeSearch& search) {
  const std::vector<std::string> known = {"minmax", "quantile", "mse", "kl"};
  if (std::find(known.begin(), known.end(), search.method) == known.end())
    fail_usage("--method {} is not one of minmax, quantile, mse, kl", search.method);
  if (!(search.low >= 0 && search.low < search.high && search.high <= 1)) {
    fail_usage("--quantiles {},{} must be two numbers that rise within [0, 1]", search.low,
               search.high);
  }
}

void RangeStatistics::add(const at::Tensor& values) {
  const at::Tensor x = values.to(at::kFloat);
  at::Tensor lo, hi;
  if (rows_ == 0) {
    std::tie(lo, hi) = at::aminmax(x);
  } else {
    std::tie(lo, hi) = at::aminmax(x, 1);
  }
  lo_ = lo_.defined() ? at::minimum(lo_, lo) : lo;
  hi_ = hi_.defined() ? at::maximum(hi_, hi) : hi;
  if (rows_ == 0) {
    count(x.flatten());
  } else {
    keep(x);
  }
}

void RangeStatistics::count(const at::Tensor& x) {
  const at::Tensor bin = x.div(kFinest)
                             .asinh()
                             .div(2 * kWidest)
                             .add(0.5)
                             .mul(static_cast<double>(kBins))
                             .floor()
                             .clamp(0, kBins - 1)
                             .to(at::kLong);
  const at::Tensor counts = at::bincount(bin, {}, kBins).to(at::kDouble);
  const at::Tensor sums = at::bincount(bin, x.to(at::kDouble), kBins);
  counts_ = counts_.defined() ? counts_.add(counts) : counts;
  sums_ = sums_.defined() ? sums_.add(sums) : sums;
}

void RangeStatistics::keep(const at::Tensor& x) {
  const int64_t held = kept_.defined() ? kept_.size(1) : 0;
  const int64_t more = std::min(x.size(1), kKeptPerRow - held);
  if (more <= 0) return;
  const at::Tensor part = x.narrow(1, 0, more);
  kept_ = held > 0 ? at::cat({kept_, part}, 1) : part.clone();
}

at::Tensor RangeStatistics::range(const RangeSearch& search, const QuantizerShape& shape) const {
  check_range_search(search);
  const at::Tensor widest = at::stack({lo_, hi_}, -1);
  if (search.method == "minmax") return widest;
  const at::Tensor ends = widest.view({-1, 2}).to(at::kDouble);
  Distribution d;
  if (rows_ == 0) {
    const at::Tensor used = counts_.nonzero().flatten(), n = counts_.index_select(0, used);
    const at::Tensor centers = sums_.index_select(0, used).div(n);
    // The width of a bin at x: dx / dt of x = kFinest sinh(t).
    const at::Tensor widths =
        centers.div(kFinest).square().add(1).sqrt().mul(kFinest * 2 * kWidest / kBins);
    d = {centers.unsqueeze(0), n.unsqueeze(0), widths.unsqueeze(0)};
  } else {
    d = binned(kept_.to(at::kDouble), ends);
  }
  at::Tensor found;
  if (search.method == "quantile") {
    found = at::cat({at_quantile(d, search.low), at_quantile(d, search.high)}, 1);
  } else {
    found = cheapest(d, ends, search, shape);
  }
  return found.to(at::kFloat).view(widest.sizes());
}

}  // namespace refract
