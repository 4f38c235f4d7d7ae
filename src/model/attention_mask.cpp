#include "model/attention_mask.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/ones.h>

namespace refract {

at::Tensor seen_keys(int64_t queries, int64_t keys, int64_t window, at::Device device) {
  const int64_t own = keys - queries;  // query i stands at position own + i
  at::Tensor seen =
      at::ones({queries, keys}, at::TensorOptions().dtype(at::kBool).device(device)).tril_(own);
  if (window > 0 && window < keys) seen.triu_(own - window + 1);
  return seen;
}

at::Tensor seen_keys_at(const at::Tensor& lengths, int64_t keys, int64_t window) {
  const at::Tensor place = at::arange(keys, lengths.options()), last = lengths.unsqueeze(1);
  at::Tensor seen = place <= last;
  if (window > 0 && window < keys) seen = seen.logical_and(place > last - window);
  return seen.view({lengths.size(0), 1, 1, keys});
}

}  // namespace refract
