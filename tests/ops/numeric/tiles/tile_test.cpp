// What lies around products on tiles: CPU against CUDA, and what the ops refuse. The definition is
// compared with loops over numbers in tests/transforms/analog/tiles_test.cpp.
// Samples for tests/parity/test_every_op.py:
// opcheck: analog_inputs(plain(3, 10), plain(3, 3).abs() + 1, 4, 8)
// opcheck: analog_inputs(plain(3, 10), plain(3).abs() + 1, 4, 0)
// opcheck: analog_collect_(plain(3, 4), plain(3, 4), plain(4), plain(3, 1), plain(4), None)
// opcheck: analog_collect_(plain(3, 4), plain(3, 4), None, plain(1), plain(4),
//   torch.tensor([1, 2]), 0.1, 8, 10.0, 1, 2)
#include "ops/numeric/tiles/tile.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include "support/compare.h"

namespace refract {
namespace analog_tile_test {

using testing::identical;
using testing::normal;

TEST(AnalogTile, CudaConvertsInputsAsTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf, at::kDouble}) {
    for (const int64_t width : {24, 37}) {
      for (const int64_t bits : {0, 2, 8}) {
        const at::Tensor x = normal({5, width}, dtype);
        const int64_t tiles = (width + 9) / 10;
        const auto wide = dtype == at::kDouble ? at::kDouble : at::kFloat;
        for (const at::Tensor& r :
             {normal({5, tiles}, wide).abs() + 0.1, normal({tiles}, wide).abs() + 0.1}) {
          const at::Tensor here = analog_inputs(x, r, 10, bits);
          const at::Tensor there = analog_inputs(x.to(at::kCUDA), r.to(at::kCUDA), 10, bits);
          EXPECT_TRUE(identical(there.to(at::kCPU), here)) << dtype << " " << width << " " << bits;
        }
      }
    }
  }
}

// Rows of four elements and others, a clock that begins with a block and one that doesn't. A last
// place of the noise may decide between two levels; there are 21 of 0.1.
TEST(AnalogTile, CudaCollectsAsTheCpu) {
  REFRACT_CUDA_OR_SKIP();
  for (const int64_t columns : {8, 7}) {
    for (const int64_t first : {0, 3}) {
      for (const AnalogConverter& converter :
           {AnalogConverter{}, AnalogConverter{0, 0, 1}, AnalogConverter{0, 8, 2},
            AnalogConverter{0.5, 0, 0, 4, -5}, AnalogConverter{0.5, 5, 1.5, 4, -5}}) {
        const at::Tensor y = normal({9, columns}, at::kFloat), z = normal({9, columns}, at::kFloat);
        const at::Tensor scale = normal({columns}, at::kFloat), out = normal({columns}, at::kFloat);
        const at::Tensor clock = at::tensor({int64_t{6}, first}, at::kLong);
        for (const at::Tensor& r : {normal({9, 1}, at::kFloat), normal({1}, at::kFloat)}) {
          const auto run = [&](at::Device device) {
            at::Tensor sum = y.clone().to(device);
            analog_collect_(sum, z.clone().to(device), scale.to(device), r.to(device),
                            out.to(device), clock.to(device), converter);
            return sum.to(at::kCPU);
          };
          const at::Tensor apart = run(at::kCUDA).sub(run(at::kCPU)).abs();
          EXPECT_LT(apart.max().item<double>(),
                    converter.bits > 0 && converter.out_noise > 0 ? 1 : 1e-5);
          EXPECT_LE(apart.gt(1e-5).sum().item<int64_t>(), 1);
        }
      }
    }
  }
}

TEST(AnalogTile, RefusesWhatDoesNotFit) {
  const at::Tensor x = normal({3, 10}, at::kFloat), y = normal({3, 4}, at::kFloat);
  EXPECT_THROW(analog_inputs(x, normal({3, 2}, at::kFloat), 4, 8), c10::Error);
  EXPECT_THROW(analog_inputs(x, normal({3, 3}, at::kDouble), 4, 8), c10::Error);
  const at::Tensor out = normal({4}, at::kFloat), r = normal({1}, at::kFloat);
  const auto collect = [&](const at::Tensor& z, const AnalogConverter& converter) {
    analog_collect_(y, z, std::nullopt, r, out, std::nullopt, converter);
  };
  EXPECT_THROW(collect(normal({3, 5}, at::kFloat), {}), c10::Error);
  EXPECT_THROW(collect(y.clone(), {0.1}), c10::Error);
  EXPECT_THROW(collect(y.clone(), {0, 8, 0}), c10::Error);
}

}  // namespace analog_tile_test
}  // namespace refract
