#include "data/mix/mixture.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <span>
#include <utility>

#include "core/error.h"
#include "core/random.h"

namespace refract {
namespace {

class JoinedStream : public TokenStream {
 public:
  explicit JoinedStream(std::vector<MixPart> parts) : parts_(std::move(parts)) {
    for (const MixPart& part : parts_) ends_.push_back(size() + part.stream->size());
  }

  int64_t size() const override { return ends_.empty() ? 0 : ends_.back(); }

  void read(int64_t begin, std::span<int32_t> out) const override {
    if (begin < 0 || begin > size() || static_cast<int64_t>(out.size()) > size() - begin) {
      fail("tokens [{}, {}) were asked of a stream that has {}", begin,
           begin + static_cast<int64_t>(out.size()), size());
    }
    const auto end = std::upper_bound(ends_.begin(), ends_.end(), begin);
    for (auto i = static_cast<size_t>(end - ends_.begin()); !out.empty(); ++i) {
      const int64_t first = i == 0 ? 0 : ends_[i - 1];
      const size_t count = std::min(out.size(), static_cast<size_t>(ends_[i] - begin));
      parts_[i].stream->read(begin - first, out.first(count));
      out = out.subspan(count);
      begin += static_cast<int64_t>(count);
    }
  }

  int32_t max_token() const override {
    int32_t most = 0;
    for (const MixPart& part : parts_) most = std::max(most, part.stream->max_token());
    return most;
  }

  std::vector<TokenShare> shares() const override {
    std::vector<TokenShare> all;
    for (const MixPart& part : parts_) all.push_back({part.stream->size(), part.weight});
    return all;
  }

 private:
  std::vector<MixPart> parts_;
  std::vector<int64_t> ends_;  // tokens up to and with each part
};

// Of its own for each part, so that parts of one length are not gone through alike.
uint64_t seed_of(uint64_t seed, uint64_t part) {
  const PhiloxBlock draw = philox(philox_key(seed, stream_id("data.mix")), 0, part);
  return (static_cast<uint64_t>(draw.word[0]) << 32) | draw.word[1];
}

}  // namespace

std::shared_ptr<TokenStream> join_streams(std::vector<MixPart> parts) {
  return std::make_shared<JoinedStream>(std::move(parts));
}

// By the largest remainders.
std::vector<int64_t> mix_slots(const std::vector<double>& weights) {
  for (const double weight : weights) {
    if (!(weight > 0) || !std::isfinite(weight))
      fail_usage("data.weights holds {}: every weight must be above 0", weight);
  }
  // By a power of two, so that nothing is rounded and large weights have a finite sum.
  int exponent = 0;
  if (!weights.empty()) std::frexp(*std::max_element(weights.begin(), weights.end()), &exponent);
  std::vector<double> scaled;
  for (const double weight : weights) scaled.push_back(std::ldexp(weight, -exponent));
  const double sum = std::accumulate(scaled.begin(), scaled.end(), 0.0);
  std::vector<int64_t> slots;
  std::vector<std::pair<double, size_t>> missing;  // what rounding down took, negative
  int64_t left = kMixSlots;
  for (size_t i = 0; i < weights.size(); ++i) {
    const double exact = scaled[i] / sum * static_cast<double>(kMixSlots);
    slots.push_back(static_cast<int64_t>(exact));
    left -= slots.back();
    missing.emplace_back(static_cast<double>(slots.back()) - exact, i);
  }
  std::sort(missing.begin(), missing.end());
  for (int64_t i = 0; i < left; ++i) ++slots[missing[static_cast<size_t>(i)].second];
  return slots;
}

WindowMix::WindowMix(const TokenStream& stream, int64_t context, uint64_t seed, Sampling sampling)
    : seed_(seed_of(seed, ~uint64_t{0})) {
  const std::vector<TokenShare> shares = stream.shares();
  std::vector<double> weights;
  for (const TokenShare& share : shares) weights.push_back(share.weight);
  const std::vector<int64_t> slots = mix_slots(weights);
  int64_t begin = 0, slot = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    if (shares.size() > 1 && shares[i].tokens < context + 1) {
      fail(
          "corpus {} of data.path has {} training tokens, but one sequence takes {} (data.context "
          "+ "
          "1): use a smaller data.context or more text",
          i + 1, shares[i].tokens, context + 1);
    }
    const uint64_t own = shares.size() == 1 ? seed : seed_of(seed, i);
    parts_.push_back(
        {WindowOrder(shares[i].tokens, context, own, sampling), begin, slot, slots[i]});
    begin += shares[i].tokens;
    slot += slots[i];
  }
}

int64_t WindowMix::start(int64_t g) const {
  if (parts_.size() == 1) return parts_[0].order.start(g);
  if (g < 0) fail("a run has no window {}", g);
  const int64_t round = g / kMixSlots;
  const auto slot = static_cast<int64_t>(permute_index(
      static_cast<uint64_t>(g % kMixSlots), kMixSlots, seed_, static_cast<uint64_t>(round)));
  const auto part = std::find_if(parts_.begin(), parts_.end(),
                                 [&](const Part& p) { return slot < p.slot + p.slots; });
  return part->begin + part->order.start(round * part->slots + slot - part->slot);
}

}  // namespace refract
