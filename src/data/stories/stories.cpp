#include "data/stories/stories.h"

#include "core/random.h"
#include "data/stories/character_plots.h"
#include "data/stories/deed_plots.h"
#include "data/stories/teller.h"
#include "data/stories/thing_plots.h"

namespace refract {
namespace {

using stories::Dice;
using stories::Plot;
using stories::Teller;

constexpr int kLeastWords = 80, kMostWords = 250;
constexpr uint64_t kMostAttempts = 64;

int count_words(std::string_view text) {
  int words = 0;
  bool inside = false;
  for (const char c : text) {
    const bool letter = c != ' ' && c != '\n';
    words += letter && !inside;
    inside = letter;
  }
  return words;
}

Plot choose_plot(Dice& dice) {
  const std::span<const Plot> parts[] = {stories::thing_plots(), stories::deed_plots(),
                                         stories::character_plots()};
  size_t total = 0;
  for (const auto& part : parts) total += part.size();
  size_t index = dice.below(static_cast<uint32_t>(total));
  for (const auto& part : parts) {
    if (index < part.size()) return part[index];
    index -= part.size();
  }
  return nullptr;
}

}  // namespace

std::string StoryGenerator::story(uint64_t index) const {
  const PhiloxKey key = philox_key(seed_, stream_id("stories"));
  std::string text;
  for (uint64_t attempt = 0; attempt < kMostAttempts; ++attempt) {
    Dice dice(key, index, attempt);
    Teller teller(dice);
    choose_plot(dice)(teller);
    text = teller.text();
    const int words = count_words(text);
    if (words >= kLeastWords && words <= kMostWords) break;  // nearly always the first
  }
  return text;
}

}  // namespace refract
