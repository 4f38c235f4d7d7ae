// How processes divide a flat range of the arena among them.
#pragma once
#include <cstdint>
#include <vector>

namespace refract {

struct Range {
  int64_t begin = 0, end = 0;
  int64_t size() const { return end - begin; }
};

// n elements in `units` parts of equal width, a multiple of 64 elements, so that kernels find them
// aligned; the last ones are shorter, or empty. Each of the processes, whose number divides that of
// the units, has as many that follow each other: its slice.
class Slices {
 public:
  Slices(int64_t n, int64_t units, int64_t processes);

  int64_t width() const { return unit_ * per_process_; }  // of a slice that is not cut short
  int64_t units_per_process() const { return per_process_; }
  Range unit(int64_t index) const { return cut(index * unit_, unit_); }
  Range of(int64_t process) const { return cut(process * width(), width()); }
  // At most `length` elements of that slice, from its element `at` on.
  Range piece(int64_t process, int64_t at, int64_t length) const;

 private:
  Range cut(int64_t begin, int64_t size) const;

  int64_t n_, unit_, per_process_;
};

// `whole` without the others, which lie in it or outside of it: from the front.
std::vector<Range> without(const Range& whole, std::vector<Range> others);

}  // namespace refract
