#include "bench/inputs.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>

#include "core/random.h"

namespace refract {

at::Tensor random_tokens(int64_t batch, int64_t length, int64_t vocabulary, uint64_t seed) {
  RandomStream random(seed, "bench");
  at::Tensor tokens = at::empty({batch, length}, at::kInt);
  int32_t* data = tokens.mutable_data_ptr<int32_t>();
  for (int64_t i = 0; i < batch * length; ++i)
    data[i] = static_cast<int32_t>(random.below(static_cast<uint64_t>(vocabulary)));
  return tokens;
}

at::Tensor random_input(int64_t tokens, int64_t width, const BenchDevice& bench) {
  return at::randn({tokens, width}, at::TensorOptions().device(bench.device)).to(bench.dtype);
}

}  // namespace refract
