// What the optical CPU kernels share: ranges in tensors, rows over threads, noise words by the row.
#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <array>
#include <vector>

#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/optical/quantize/quantization_math.h"

namespace refract::optical {

static_assert(sizeof(Range) == 2 * sizeof(float));
inline Range* ranges_in(const at::Tensor& t) {
  return reinterpret_cast<Range*>(t.mutable_data_ptr<float>());
}

template <class F>
void dispatch_kernel_type(at::ScalarType dtype, F&& f) {
  switch (dtype) {
    case at::kFloat:
      return f(TypeTag<float>{});
    case at::kBFloat16:
      return f(TypeTag<at::BFloat16>{});
    default:
      return f(TypeTag<at::Half>{});
  }
}

// f(begin, end) handles rows of `width` elements and returns the range it saw; merges them, which
// does not depend on the order.
template <class F>
Range over_rows(int64_t rows, int64_t width, F&& f) {
  std::vector<Range> parts(static_cast<size_t>(at::get_num_threads()), unset_range());
  const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(width, 1));
  at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
    Range& part = parts[static_cast<size_t>(at::get_thread_num())];
    part = merge(part, f(begin, end));
  });
  Range all = unset_range();
  for (const Range& part : parts) all = merge(all, part);
  return all;
}

// Where a call's noise stands in its stream.
struct NoisePlace {
  PhiloxKey key;
  uint64_t step = UINT64_MAX, first = 0;
  bool draws = false;

  // clock: int64 [2] or none; slice: elements per slice of dimension 0.
  NoisePlace(bool on, const std::optional<at::Tensor>& clock, int64_t slice, int64_t seed,
             int64_t stream)
      : key(philox_key(static_cast<uint64_t>(seed), static_cast<uint64_t>(stream))), draws(on) {
    if (!clock.has_value()) return;
    const at::Tensor now = clock->contiguous();
    step = static_cast<uint64_t>(now.const_data_ptr<int64_t>()[0]);
    first = static_cast<uint64_t>(now.const_data_ptr<int64_t>()[1] * slice);
  }
};

constexpr int64_t kNoiseChunk = 1024;

// Cuts elements [begin, begin + n) of a call into chunks, f(offset, count, halves or null): 16 bits
// of noise per element, see noise_of_half().
template <class F>
void over_chunks(const NoisePlace& noise, int64_t begin, int64_t n, F&& f) {
  std::array<uint32_t, kNoiseChunk / 2 + 8> words;
  for (int64_t j = 0; j < n; j += kNoiseChunk) {
    const int64_t count = std::min(kNoiseChunk, n - j);
    const uint64_t index = noise.first + static_cast<uint64_t>(begin + j);
    const auto skip = static_cast<int64_t>(index & 7);
    if (noise.draws) {
      simd::draw_noise(noise.key, noise.step, index >> 3, words.data(), (skip + count + 7) / 8);
    }
    // The low half of a word comes first, as it does in memory.
    f(j, count, noise.draws ? reinterpret_cast<const uint16_t*>(words.data()) + skip : nullptr);
  }
}

}  // namespace refract::optical
