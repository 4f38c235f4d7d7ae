#include "core/random.h"

namespace refract {

uint64_t RandomStream::below(uint64_t n) {
  const uint64_t limit = UINT64_MAX - UINT64_MAX % n;
  for (;;) {
    const uint64_t high = next(), low = next();
    const uint64_t value = (high << 32) | low;
    if (value < limit) return value % n;
  }
}

}  // namespace refract
