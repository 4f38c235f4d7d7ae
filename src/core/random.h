// Random streams of a run on the host. Device code draws from the same generator
// (ops/common/philox.h).
#pragma once
#include <cstdint>
#include <string_view>

#include "ops/common/philox.h"

namespace refract {

// A stable id for a named stream ("data.order", "init:model.layers.0.mlp.up_proj.weight"): FNV-1a
// of the name.
constexpr uint64_t stream_id(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ull;
  for (char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ull;
  return hash;
}

// A sequential reader over one stream, for host code that needs "the next random number".
class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name) : key_(philox_key(seed, stream_id(name))) {}

  uint32_t next() { return philox_word(key_, 0, index_++); }
  double uniform() {  // [0, 1) with 53 bits
    const uint64_t high = next(), low = next();
    return static_cast<double>(((high << 32) | low) >> 11) * 0x1.0p-53;
  }
  uint64_t below(uint64_t n);  // uniform in [0, n), n > 0, without modulo bias

 private:
  PhiloxKey key_;
  uint64_t index_ = 0;
};

}  // namespace refract
