#include "data/windows.h"

#include <algorithm>
#include <bit>

#include "core/error.h"
#include "core/random.h"

namespace refract {
namespace {

constexpr int kRounds = 6;
constexpr int kLeastHalfBits = 3;  // below it the network reaches few permutations

// Uniform in [0, n), but for 1 part in 2^64 / n.
int64_t below(const PhiloxBlock& draw, int64_t n) {
  const uint64_t wide = (static_cast<uint64_t>(draw.word[0]) << 32) | draw.word[1];
  return static_cast<int64_t>(wide % static_cast<uint64_t>(n));
}

}  // namespace

uint64_t permute_index(uint64_t index, uint64_t n, uint64_t seed, uint64_t epoch) {
  if (index >= n) fail("index {} is outside a permutation of {}", index, n);
  if (n == 1) return 0;
  const PhiloxKey key = philox_key(seed, stream_id("data.order"));
  const int half = std::max(kLeastHalfBits, (static_cast<int>(std::bit_width(n - 1)) + 1) / 2);
  const uint64_t mask = (uint64_t{1} << half) - 1;
  // A Feistel network permutes [0, 4^half). Walking along its cycle until it is back inside [0, n)
  // permutes [0, n), in fewer than four steps on average (once n fills the least network).
  uint64_t value = index;
  do {
    uint64_t left = value >> half, right = value & mask;
    for (uint64_t round = 0; round < kRounds; ++round) {
      const uint64_t mixed = philox(key, epoch, (round << 32) | right).word[0];
      const uint64_t next = left ^ (mixed & mask);
      left = right;
      right = next;
    }
    value = (left << half) | right;
  } while (value >= n);
  return value;
}

WindowOrder::WindowOrder(int64_t num_tokens, int64_t context, uint64_t seed, Sampling sampling)
    : context_(context), starts_(num_tokens - context), seed_(seed), sampling_(sampling) {
  if (context < 1) fail_usage("data.context = {}: it must be at least 1", context);
  if (num_tokens < context + 1) {
    fail(
        "the corpus has {} tokens, but one sequence takes {} (data.context + 1): use a smaller "
        "data.context or more text",
        num_tokens, context + 1);
  }
  // One window less than fit, where more than one fits: the starts can then shift by a whole
  // context, so that over the epochs a token stands at every place of a window, the last tokens
  // included.
  windows_ = std::max<int64_t>(1, (num_tokens - 1) / context - 1);
  slack_ = num_tokens - 1 - windows_ * context;
}

int64_t WindowOrder::start(int64_t g) const {
  if (g < 0) fail("a run has no window {}", g);
  if (sampling_ == Sampling::kPermutation) return permuted_start(g);
  const PhiloxBlock draw =
      philox(philox_key(seed_, stream_id("data.random")), 0, static_cast<uint64_t>(g));
  return below(draw, starts_);
}

int64_t WindowOrder::permuted_start(int64_t g) const {
  const auto epoch = static_cast<uint64_t>(g / windows_);
  const auto index = static_cast<uint64_t>(g % windows_);
  const PhiloxBlock draw = philox(philox_key(seed_, stream_id("data.offset")), epoch, 0);
  const int64_t shift = below(draw, slack_ + 1);
  const uint64_t window = permute_index(index, static_cast<uint64_t>(windows_), seed_, epoch);
  return shift + static_cast<int64_t>(window) * context_;
}

}  // namespace refract
