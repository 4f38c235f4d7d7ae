// The windows that training cuts from a stream of tokens, and the order in which it visits them.
#pragma once
#include <cstdint>

namespace refract {

// kPermutation: epoch by epoch a keyed permutation of all windows, without replacement. kRandom:
// every window starts at a random token, drawn with replacement, which is how nanoGPT and the
// connectivity study sample.
enum class Sampling { kPermutation, kRandom };

// The order in which training windows are visited. Stateless: sequence number g of a run is found
// in O(1), whatever the world size or batch, so that ranks with different g never share a draw.
class WindowOrder {
 public:
  // Windows of context + 1 tokens (inputs and targets shifted by one). In a permutation they start
  // `context` tokens apart, and each epoch shifts all starts by a keyed offset, over a whole
  // context where the stream is long enough, so that every token is reached and stands at every
  // place of a window in turn. Fails if the stream has fewer than context + 1 tokens.
  WindowOrder(int64_t num_tokens, int64_t context, uint64_t seed,
              Sampling sampling = Sampling::kPermutation);
  int64_t windows_per_epoch() const { return windows_; }
  // First token of the g-th window of the run (g >= 0).
  int64_t start(int64_t g) const;

 private:
  int64_t permuted_start(int64_t g) const;

  int64_t windows_, context_, slack_;
  int64_t starts_;  // tokens at which a window can start
  uint64_t seed_;
  Sampling sampling_;
};

// A keyed permutation of [0, n): a Feistel network with cycle walking.
uint64_t permute_index(uint64_t index, uint64_t n, uint64_t seed, uint64_t epoch);

}  // namespace refract
