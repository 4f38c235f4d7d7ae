// CPU kernel of bit_flip: random words are drawn for a chunk of elements, then applied. Rare flips:
// all elements are copied, and then those are mended that flip.
#include <ATen/Parallel.h>
#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <array>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/philox_cpu.h"
#include "ops/common/simd.h"
#include "ops/numeric/flips.h"

namespace refract {
namespace {

using numeric::Flips;
using numeric::FlipType;

constexpr int64_t kChunk = 256;  // elements
constexpr int kMostBlocks = 6;   // of one element: 24 words
constexpr int64_t kRareChunk = 1024;

template <class T>
using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;

struct Draw {
  FlipType type;
  Flips flips;
  numeric::RareFlips rare;
  int blocks;
  PhiloxKey key;
  uint64_t step, first;
};

// y[i] = `of`[i] where x[i], flipped, is kept. Forward, `of` is what x became.
template <class T>
void flip_range(const T* x, const T* grad, T* y, const Draw& d, int64_t begin, int64_t end) {
  std::array<uint32_t, kChunk * kMostBlocks * 4> words;
  for (int64_t i = begin; i < end; i += kChunk) {
    const int64_t n = std::min(kChunk, end - i);
    const uint64_t block = (d.first + static_cast<uint64_t>(i)) * static_cast<uint64_t>(d.blocks);
    simd::draw_noise(d.key, d.step, block, words.data(), n * d.blocks);
    for (int64_t j = 0; j < n; ++j) {
      const uint32_t mask = flip_mask(d.type, d.flips, words.data() + 4 * d.blocks * j);
      const auto bits = static_cast<Bits<T>>(std::bit_cast<Bits<T>>(x[i + j]) ^ mask);
      const T flipped = std::bit_cast<T>(bits);
      const bool keep = is_kept(d.flips, simd::widen(flipped));
      y[i + j] = !keep ? T(0) : grad == nullptr ? flipped : grad[i + j];
    }
  }
}

// y[i] = of[i] where x[i] is kept.
template <class T>
REFRACT_SIMD void keep_range(const T* x, const T* of, T* y, float zero_out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float value = simd::widen(x[i]);
    const float magnitude = value < 0.0f ? -value : value;
    y[i] = magnitude < zero_out ? of[i] : T(0);
  }
}

template <class T>
void rare_range(const T* x, const T* grad, T* y, const Draw& d, int64_t begin, int64_t end) {
  constexpr int64_t kPerGroup = 16 / sizeof(T);
  constexpr int64_t kGroups = kRareChunk / kPerGroup + 1;  // a chunk may begin inside of one
  std::array<uint32_t, kGroups * 4> words;
  std::array<numeric::GroupMask, kGroups> masks;
  for (int64_t i = begin; i < end; i += kRareChunk) {
    const int64_t n = std::min(kRareChunk, end - i);
    const T* of = grad == nullptr ? x + i : grad + i;
    if (d.flips.zeroes) {
      keep_range(x + i, of, y + i, d.flips.zero_out, n);
    } else {
      std::copy(of, of + n, y + i);
    }
    const uint64_t element = d.first + static_cast<uint64_t>(i), group = element / kPerGroup;
    const auto groups =
        static_cast<int64_t>((element + static_cast<uint64_t>(n) - 1) / kPerGroup - group + 1);
    masks.fill({});
    for (int process = 0; process < d.rare.processes; ++process) {
      simd::draw_noise(d.key, d.step, numeric::dart_block(process, 0, group), words.data(), groups);
      for (int64_t g = 0; g < groups; ++g) {
        throw_darts(d.rare, process, words.data() + 4 * g, d.key, d.step,
                    group + static_cast<uint64_t>(g), masks[static_cast<size_t>(g)]);
      }
    }
    const auto skipped = static_cast<int64_t>(element % kPerGroup);
    for (int64_t g = 0; g < groups; ++g) {
      const auto& word = masks[static_cast<size_t>(g)].word;
      if ((word[0] | word[1] | word[2] | word[3]) == 0) continue;
      for (int64_t e = 0; e < kPerGroup; ++e) {
        const int64_t j = g * kPerGroup + e - skipped;
        const auto mask =
            static_cast<Bits<T>>(sizeof(T) == 4 ? word[e] : word[e / 2] >> (e % 2 != 0 ? 16 : 0));
        if (mask == 0 || j < 0 || j >= n) continue;
        const T flipped =
            std::bit_cast<T>(static_cast<Bits<T>>(std::bit_cast<Bits<T>>(x[i + j]) ^ mask));
        const bool keep = is_kept(d.flips, simd::widen(flipped));
        y[i + j] = !keep ? T(0) : grad == nullptr ? flipped : grad[i + j];
      }
    }
  }
}

at::Tensor flip(const BitFlipInputs& in, const at::Tensor& grad) {
  const at::Tensor x = in.x.contiguous(), clock = in.clock.contiguous();
  at::Tensor y = at::empty_like(x);
  const int64_t* now = clock.const_data_ptr<int64_t>();
  Draw d{numeric::flip_type(x.scalar_type()),
         numeric::flips_of(in),
         {},
         0,
         philox_key(static_cast<uint64_t>(in.seed), static_cast<uint64_t>(in.stream)),
         static_cast<uint64_t>(now[0]),
         static_cast<uint64_t>(now[1])};
  d.blocks = blocks_per_element(d.type, d.flips);
  const bool rare = is_rare(d.flips);
  if (rare) d.rare = numeric::rare_flips_of(d.type, d.flips);
  dispatch_floating(x.scalar_type(), "bit_flip", [&](auto tag) {
    using T = typename decltype(tag)::type;
    if constexpr (!std::is_same_v<T, double>) {
      const T* of = grad.defined() ? grad.const_data_ptr<T>() : nullptr;
      at::parallel_for(0, x.numel(), 16 * kChunk, [&](int64_t begin, int64_t end) {
        (rare ? rare_range<T> : flip_range<T>)(x.const_data_ptr<T>(), of, y.mutable_data_ptr<T>(),
                                               d, begin, end);
      });
    }
  });
  return y;
}

at::Tensor bit_flip_cpu(const BitFlipInputs& in) {
  if (in.x.scalar_type() == at::kDouble) return composite::bit_flip(in);
  bit_flip_op::check(in);
  return flip(in, {});
}

at::Tensor bit_flip_backward_cpu(const BitFlipBackwardInputs& in) {
  if (in.x.scalar_type() == at::kDouble) return composite::bit_flip_backward(in);
  bit_flip_op::check_backward(in);
  return flip(bit_flip_op::forward_of(in), in.grad.contiguous());
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, bit_flip).cpu<bit_flip_cpu>();
  forms(m, bit_flip_backward).cpu<bit_flip_backward_cpu>();
}

}  // namespace refract
