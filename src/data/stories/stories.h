// A generator of small English stories: a corpus of any size without a download.
//
// Each story has a plot (a loss and a search, a quarrel, a journey, ...) over characters with
// names, feelings and aims, objects with owners and places, causes that come before their effects,
// and an ending that returns to what was introduced. The vocabulary is about 1,500 words.
#pragma once
#include <cstdint>
#include <string>

namespace refract {

// Changes whenever the text that a seed gives changes.
inline constexpr int kStoryVersion = 1;

class StoryGenerator {
 public:
  explicit StoryGenerator(uint64_t seed) : seed_(seed) {}
  // The index-th story of the seed: 80 to 250 words of ASCII in one to a few paragraphs, which are
  // parted by one line break. The same on every platform.
  std::string story(uint64_t index) const;

 private:
  uint64_t seed_;
};

}  // namespace refract
