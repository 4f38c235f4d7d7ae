// CPU kernels of optical_quantize and optical_observe_.
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/optical/quantize/parallel_cpu.h"
#include "ops/optical/quantize/quantize.h"
#include "ops/optical/quantize/row_loops.h"

namespace refract {
namespace {

using optical::Range;
using optical::ranges_in;

// Elements are cut into "rows" of one chunk of noise for the threads.
template <class F>
Range over_elements(int64_t n, F&& f) {
  const int64_t rows = (n + optical::kNoiseChunk - 1) / optical::kNoiseChunk;
  return optical::over_rows(rows, optical::kNoiseChunk, [&](int64_t begin, int64_t end) {
    const int64_t first = begin * optical::kNoiseChunk;
    return f(first, std::min(n, end * optical::kNoiseChunk) - first);
  });
}

template <class T>
Range seen_by_all(const T* x, int64_t n) {
  return over_elements(
      n, [&](int64_t first, int64_t count) { return optical::seen_in(x + first, count); });
}

at::Tensor quantize_cpu(const OpticalQuantizeInputs& in) {
  if (in.x.scalar_type() == at::kDouble || in.x.numel() == 0 ||
      !at::isFloatingType(in.x.scalar_type())) {
    return composite::optical_quantize(in);
  }
  optical_op::check_quantize(in);
  const at::Tensor x = in.x.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  const int64_t slices = x.dim() == 0 ? 1 : x.size(0);
  const optical::NoisePlace noise(in.noise.on && !in.noise.shared.has_value(), in.noise.clock,
                                  x.numel() / slices, in.noise.seed, in.noise.stream);
  optical::dispatch_kernel_type(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    Range used = *ranges_in(in.range);
    if (!optical::is_set(used)) used = seen_by_all(from, x.numel());
    optical::OutputRow a{};
    a.q = optical::quantizer(used, static_cast<int>(in.levels), static_cast<float>(in.lut_min));
    a.shared = static_cast<float>(in.noise.shared.value_or(0));
    over_elements(x.numel(), [&](int64_t first, int64_t count) {
      optical::over_chunks(noise, first, count, [&](int64_t j, int64_t n, const uint16_t* halves) {
        optical::quantize_row(from + first + j, to + first + j, halves, n, a);
      });
      return optical::unset_range();
    });
  });
  return y;
}

void observe_cpu(const OpticalObserveInputs& in) {
  optical_op::check_observe(in);
  if (in.x.numel() == 0) return;
  if (in.x.scalar_type() == at::kDouble || !in.quantiles.empty()) {
    composite::optical_move_(in.range, in.range, composite::optical_seen(in.x, in.quantiles),
                             in.smooth);
    return;
  }
  const at::Tensor x = in.x.contiguous();
  optical::dispatch_kernel_type(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Range seen = seen_by_all(x.const_data_ptr<T>(), x.numel());
    *ranges_in(in.range) =
        optical::moved(*ranges_in(in.range), seen, static_cast<float>(in.smooth));
  });
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, optical_quantize).cpu<quantize_cpu>();
  forms(m, optical_observe_).cpu<observe_cpu>();
}

}  // namespace refract
