// Which chip the analog layers of an evaluation are, and how old it is, where that is not to be as
// their rules say: what `refract chips` measures with.
#pragma once
#include <cstdint>

namespace refract {

struct Chip {
  bool ideal = false;  // devices that hold what they were given; the rest does not count then
  int64_t number = 0;
  double time = 0;  // seconds since programming ended

  bool operator==(const Chip&) const = default;
};

// The chip that is set; null: each rule's own. Forward passes with one run on one thread.
const Chip* chip_in_scope();

// Sets a chip for as long as it lives.
class ChipScope {
 public:
  explicit ChipScope(const Chip& chip);
  ~ChipScope();
  ChipScope(const ChipScope&) = delete;
  ChipScope& operator=(const ChipScope&) = delete;

 private:
  Chip chip_;
  const Chip* before_;
};

}  // namespace refract
