// CPU kernels of optical_quantize and optical_observe_.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/common/check.h"
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

at::Tensor quantize_cpu(const at::Tensor& x_in, const at::Tensor& range, int64_t levels,
                        double lut_min, bool noise_on, std::optional<double> shared_noise,
                        const std::optional<at::Tensor>& clock, int64_t seed, int64_t stream) {
  if (x_in.scalar_type() == at::kDouble || x_in.numel() == 0 ||
      !at::isFloatingType(x_in.scalar_type())) {
    return composite::optical_quantize(x_in, range, levels, lut_min, noise_on, shared_noise, clock,
                                       seed, stream);
  }
  optical_op::check_levels("optical_quantize", levels, lut_min);
  optical_op::check_range("optical_quantize", "range", range, x_in);
  optical_op::check_clock("optical_quantize", clock, x_in);
  const at::Tensor x = x_in.contiguous();
  at::Tensor y = at::empty(x.sizes(), x.options());
  const int64_t slices = x.dim() == 0 ? 1 : x.size(0);
  const optical::NoisePlace noise(noise_on && !shared_noise.has_value(), clock, x.numel() / slices,
                                  seed, stream);
  optical::dispatch_kernel_type(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const T* from = x.const_data_ptr<T>();
    T* to = y.mutable_data_ptr<T>();
    Range used = *ranges_in(range);
    if (!optical::is_set(used)) used = seen_by_all(from, x.numel());
    optical::OutputRow a{};
    a.q = optical::quantizer(used, static_cast<int>(levels), static_cast<float>(lut_min));
    a.shared = static_cast<float>(shared_noise.value_or(0));
    over_elements(x.numel(), [&](int64_t first, int64_t count) {
      optical::over_chunks(noise, first, count, [&](int64_t j, int64_t n, const uint16_t* halves) {
        optical::quantize_row(from + first + j, to + first + j, halves, n, a);
      });
      return optical::unset_range();
    });
  });
  return y;
}

void observe_cpu(const at::Tensor& range, const at::Tensor& x_in, double smooth,
                 at::ArrayRef<double> quantiles) {
  optical_op::check_observe(range, x_in, smooth, quantiles);
  if (x_in.numel() == 0) return;
  if (x_in.scalar_type() == at::kDouble || !quantiles.empty()) {
    composite::optical_move_(range, range, composite::optical_seen(x_in, quantiles), smooth);
    return;
  }
  const at::Tensor x = x_in.contiguous();
  optical::dispatch_kernel_type(x.scalar_type(), [&](auto tag) {
    using T = typename decltype(tag)::type;
    const Range seen = seen_by_all(x.const_data_ptr<T>(), x.numel());
    *ranges_in(range) = optical::moved(*ranges_in(range), seen, static_cast<float>(smooth));
  });
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CPU, m) {
  m.impl("optical_quantize", quantize_cpu);
  m.impl("optical_observe_", observe_cpu);
}

}  // namespace refract
