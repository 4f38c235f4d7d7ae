#include "train/together/slices.h"

#include <algorithm>

namespace refract {
namespace {

constexpr int64_t kAligned = 64;  // elements, as the parameters in the arena are

}  // namespace

Slices::Slices(int64_t n, int64_t units, int64_t processes)
    : n_(n),
      unit_((n + units * kAligned - 1) / (units * kAligned) * kAligned),
      per_process_(units / processes) {}

Range Slices::cut(int64_t begin, int64_t size) const {
  return {std::min(begin, n_), std::min(begin + size, n_)};
}

Range Slices::piece(int64_t process, int64_t at, int64_t length) const {
  const Range all = of(process);
  return {std::min(all.begin + at, all.end), std::min(all.begin + at + length, all.end)};
}

std::vector<Range> without(const Range& whole, std::vector<Range> others) {
  std::sort(others.begin(), others.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  std::vector<Range> rest;
  int64_t at = whole.begin;
  for (const Range& other : others) {
    if (other.begin >= whole.end) break;
    if (other.begin > at) rest.push_back({at, other.begin});
    at = std::max(at, other.end);
  }
  if (at < whole.end) rest.push_back({at, whole.end});
  return rest;
}

}  // namespace refract
