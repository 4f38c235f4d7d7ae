// Several corpora as one: where each training window of a run is taken from.
#pragma once
#include <cstdint>
#include <memory>
#include <vector>

#include "data/tokens.h"
#include "data/windows.h"

namespace refract {

struct MixPart {
  std::shared_ptr<const TokenStream> stream;
  double weight = 1;
};

// The parts one behind the other. Its shares() are theirs.
std::shared_ptr<TokenStream> join_streams(std::vector<MixPart> parts);

// Of every kMixSlots windows of a run in a row, how many come from each part: its share of the
// weights, rounded so that the sum is kMixSlots. Fails (usage) for weights that are not positive.
inline constexpr int64_t kMixSlots = 4096;
std::vector<int64_t> mix_slots(const std::vector<double>& weights);

// The order in which the training windows of a stream are visited: WindowOrder in each of its
// parts, and a keyed permutation that says whose turn it is. Stateless as WindowOrder is: window g
// of a run is found in O(1) and is the same in any number of processes. Window i of a part comes
// before its window i + kMixSlots, so a part is gone through without replacement, epoch by epoch.
class WindowMix {
 public:
  // A stream of one part has the order of WindowOrder(stream.size(), ...). Fails where a part is
  // shorter than a window.
  WindowMix(const TokenStream& stream, int64_t context, uint64_t seed,
            Sampling sampling = Sampling::kPermutation);
  // First token of the g-th window of the run (g >= 0).
  int64_t start(int64_t g) const;

 private:
  struct Part {
    WindowOrder order;
    int64_t begin;        // its first token in the stream
    int64_t slot, slots;  // its places in kMixSlots
  };
  std::vector<Part> parts_;
  uint64_t seed_;
};

}  // namespace refract
