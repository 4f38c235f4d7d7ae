// What lies before and behind the products on crossbar tiles: inputs become whole steps of their
// range, and a tile's outputs are disturbed, converted and added. Neither has a gradient.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>

#include "ops/common/op.h"

namespace refract {

// x [M, K], r [M, T] or [T], float (double with a double x): the range of each tile's `tile_rows`
// inputs -> u [M, K] in x's type: x n / r within [-n, n], in whole numbers, n = 2^(bits - 1) - 1;
// with bits = 0 x / r within [-1, 1].
struct AnalogInputs {
  const at::Tensor &x, &r;
  int64_t tile_rows, bits;
};
inline constexpr Op<"analog_inputs", at::Tensor(AnalogInputs)> analog_inputs;

struct AnalogConverter {
  double out_noise = 0;  // of the normalized output
  int64_t bits = 0;      // 2^bits - 1 levels around 0; 0: no converter
  double bound = 0;      // largest output; 0: any
  int64_t seed = 0, stream = 0;
};
template <>
inline constexpr bool kListedByField<AnalogConverter> = true;

// y [M, N] += r out c(z scale + out_noise xi). z [M, N], what the tile's product gave, is used up;
// scale and out: [N]; r: [M, 1] or [1]. All float, or double. xi: element i is number i of
// refract::normal_noise with `clock`, which may be left out where out_noise is 0.
struct AnalogCollectInputs {
  const at::Tensor &y, &z;
  const MaybeTensor& scale;
  const at::Tensor &r, &out;
  const MaybeTensor& clock;
  const AnalogConverter& converter;
};
inline constexpr Op<"analog_collect_", void(AnalogCollectInputs)> analog_collect_;

namespace composite {
at::Tensor analog_inputs(const AnalogInputs& in);
void analog_collect_(const AnalogCollectInputs& in);
}  // namespace composite

namespace analog_op {
// n of that many bits; 1 for 0.
double steps_of(int64_t bits);
// x n / r as AnalogInputs says it, in whole numbers but for 0 bits. x and r broadcast; float or
// double.
at::Tensor in_steps(const at::Tensor& x, const at::Tensor& r, int64_t bits);
// Raise unless the inputs fit together.
void check(const AnalogInputs& in);
void check(const AnalogCollectInputs& in);
}  // namespace analog_op

}  // namespace refract
