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

}  // namespace refract
