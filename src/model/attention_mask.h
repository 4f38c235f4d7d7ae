// Which keys a query sees, as masks.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

namespace refract {

// bool [queries, keys], true where query i, the last `queries` of the `keys` positions, sees key j:
// itself and those before it, with a window > 0 no more than `window` of them.
at::Tensor seen_keys(int64_t queries, int64_t keys, int64_t window, at::Device device);

// The same of one query per sequence, which stands at lengths[b]: bool [B, 1, 1, keys]. Nothing is
// read back from the device.
at::Tensor seen_keys_at(const at::Tensor& lengths, int64_t keys, int64_t window);

}  // namespace refract
