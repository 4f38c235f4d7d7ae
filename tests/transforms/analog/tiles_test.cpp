// Products on tiles against a plain definition: loops over numbers in float64.
#include "transforms/analog/tiles.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "ops/numeric/normal_noise.h"

namespace refract {
namespace analog_tiles_test {

at::Tensor numbers(at::IntArrayRef sizes) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble));
}

using Matrix = std::vector<std::vector<double>>;

Matrix rows_of(const at::Tensor& x) {
  Matrix all(static_cast<size_t>(x.size(0)));
  for (int64_t i = 0; i < x.size(0); ++i) {
    for (int64_t j = 0; j < x.size(1); ++j)
      all[static_cast<size_t>(i)].push_back(x[i][j].item<double>());
  }
  return all;
}

struct Case {
  AnalogParameters p;
  size_t inputs = 0, outputs = 0;
  Matrix x, w;
  std::map<std::pair<int64_t, std::string>, Matrix> noise;  // of each tile

  size_t tile_rows() const {
    return p.tile_rows > 0 ? std::min<size_t>(static_cast<size_t>(p.tile_rows), inputs) : inputs;
  }
  size_t tile_columns() const {
    return p.tile_columns > 0 ? std::min<size_t>(static_cast<size_t>(p.tile_columns), outputs)
                              : outputs;
  }

  double largest_weight(size_t first, size_t last, size_t output) const {
    size_t from = output, to = output + 1;
    if (p.w_scale == "tile") {
      from = output / tile_columns() * tile_columns();
      to = std::min(outputs, from + tile_columns());
    }
    if (p.w_scale == "tensor") from = first = 0, to = outputs, last = inputs;
    double largest = 0;
    for (size_t o = from; o < to; ++o) {
      for (size_t i = first; i < last; ++i) largest = std::max(largest, std::abs(w[o][i]));
    }
    return largest;
  }

  // z of one row and tile, before the converter.
  std::vector<double> analog_outputs(size_t row, size_t tile, size_t first, size_t last,
                                     double r) const {
    const double steps = p.x_bits > 0 ? std::pow(2, p.x_bits - 1) - 1 : 1;
    const auto n = static_cast<double>(last - first);
    std::vector<double> z(outputs);
    for (size_t o = 0; o < outputs; ++o) {
      const double g = largest_weight(first, last, o);
      double sum = 0, power = 0, far = 0, current = 0;
      for (size_t i = first; i < last; ++i) {
        double u = x[row][i] / r;
        if (p.x_bits > 0) u = std::nearbyint(u * steps) / steps;
        const double v = w[o][i] / g, j = static_cast<double>(i - first) / n;
        sum += u * v;
        power += u * u * std::abs(v);
        current += std::abs(u) * std::abs(v);
        far += u * (1 - (1 - j) * (1 - j)) * v;
      }
      const double a = 1.75e-6 * p.ir_drop * n * current;
      sum -= (0.05 * a * a * a - 0.2 * a * a + 0.5 * a) * far;
      const auto drawn = [&](const char* role) {
        const auto found = noise.find({static_cast<int64_t>(tile), role});
        return found == noise.end() ? 0 : found->second[row][o];
      };
      z[o] = sum + p.read_noise * std::sqrt(power) * drawn("reading") + p.out_noise * drawn("out");
    }
    return z;
  }

  void convert(std::vector<double>& z) const {
    const double bound = p.out_bound > 0 ? p.out_bound : 1e300;
    if (p.adc_range == "vector") {
      const double steps = std::pow(2, p.adc_bits) - 1;
      for (size_t from = 0; from < z.size(); from += tile_columns()) {
        const size_t to = std::min(z.size(), from + tile_columns());
        double lo = 1e300, hi = -1e300;
        for (size_t o = from; o < to; ++o) {
          z[o] = std::clamp(z[o], -bound, bound);
          lo = std::min(lo, z[o]);
          hi = std::max(hi, z[o]);
        }
        const double step = hi > lo ? (hi - lo) / steps : 1;
        for (size_t o = from; o < to; ++o) z[o] = std::nearbyint((z[o] - lo) / step) * step + lo;
      }
      return;
    }
    const double n = std::pow(2, p.adc_bits - 1) - 1;
    for (double& value : z) {
      if (p.adc_bits > 0) value = std::nearbyint(value * n / bound) * bound / n;
      value = std::clamp(value, -bound, bound);
    }
  }

  Matrix product() const {
    Matrix y(x.size(), std::vector<double>(outputs));
    for (size_t row = 0; row < x.size(); ++row) {
      for (size_t tile = 0; tile * tile_rows() < inputs; ++tile) {
        const size_t first = tile * tile_rows(), last = std::min(inputs, first + tile_rows());
        double r = 0;
        for (size_t i = first; i < last; ++i) r = std::max(r, std::abs(x[row][i]));
        std::vector<double> z = analog_outputs(row, tile, first, last, r);
        convert(z);
        for (size_t o = 0; o < outputs; ++o) y[row][o] += z[o] * r * largest_weight(first, last, o);
      }
    }
    return y;
  }
};

void expect_product(const AnalogParameters& p, int64_t inputs, int64_t outputs) {
  const at::Tensor x = numbers({5, inputs}), w = numbers({outputs, inputs});
  Case plain{p, static_cast<size_t>(inputs), static_cast<size_t>(outputs), rows_of(x), rows_of(w),
             {}};
  const TileGrid grid(inputs, outputs, p);
  const at::Tensor r = grid.largest_inputs(x), g = grid.largest_weights(w, p.w_scale);
  const at::Tensor y = at::zeros({5, outputs}, x.options());
  TileNoise noise{3, {}, {}, at::tensor({int64_t{5}, int64_t{9}}, at::kLong)};
  for (int64_t tile = 0; tile < grid.tiles(); ++tile) {
    for (const bool out : {true, false}) {
      const int64_t stream = 2 * tile + (out ? 1 : 0);
      (out ? noise.out : noise.reading).push_back(static_cast<uint64_t>(stream));
      plain.noise[{tile, out ? "out" : "reading"}] =
          rows_of(normal_noise(at::empty({5, outputs}), 3, stream, noise.clock).to(at::kDouble));
    }
  }
  add_tiled_product({grid, p, x, w, r, g, g, noise}, y);
  const Matrix expected = plain.product();
  for (int64_t i = 0; i < y.size(0); ++i) {
    for (int64_t j = 0; j < outputs; ++j) {
      EXPECT_NEAR(y[i][j].item<double>(), expected[static_cast<size_t>(i)][static_cast<size_t>(j)],
                  1e-10)
          << p.w_scale << " " << p.adc_range << " " << i << " " << j;
    }
  }
}

TEST(AnalogTiles, AProductIsThePlainDefinition) {
  for (const char* scale : {"column", "tile", "tensor"}) {
    for (const auto& [rows, columns] : {std::pair{0, 0}, {8, 5}, {7, 4}, {100, 100}}) {
      AnalogParameters p;
      p.w_scale = scale;
      p.tile_rows = rows;
      p.tile_columns = columns;
      expect_product(p, 24, 10);
      p.x_bits = 0;
      p.read_noise = 0.1;
      p.ir_drop = 2e4;
      expect_product(p, 24, 10);
      p.x_bits = 4;
      p.adc_bits = 5;
      p.out_bound = 1.5;  // cuts off
      expect_product(p, 25, 11);
      p.adc_range = "vector";
      expect_product(p, 25, 11);
      p.adc_range = "fixed";
      p.adc_bits = 0;
      expect_product(p, 25, 11);
      p.out_bound = 0;
      p.out_noise = 0;
      expect_product(p, 25, 11);
    }
  }
}

// Levels of 2 bits between -1 and 1, both of which are levels.
TEST(AnalogTiles, AVectorsLevelsReachFromItsSmallestToItsLargest) {
  AnalogParameters p;
  p.w_scale = "tensor";
  p.out_noise = 0;
  p.adc_bits = 2;
  p.adc_range = "vector";
  const auto doubles = at::TensorOptions().dtype(at::kDouble);
  const at::Tensor x = at::ones({1, 1}, doubles);
  const at::Tensor w = at::tensor({-1.0, -0.4, 0.1, 0.6, 0.7, 1.0}, doubles).view({6, 1});
  const TileGrid grid(1, 6, p);
  const at::Tensor r = grid.largest_inputs(x), g = grid.largest_weights(w, p.w_scale);
  const at::Tensor y = at::zeros({1, 6}, doubles);
  const TileNoise none{0, {0}, {0}, {}};
  add_tiled_product({grid, p, x, w, r, g, g, none}, y);
  const at::Tensor expected = at::tensor({-3.0, -1.0, 1.0, 1.0, 3.0, 3.0}, doubles).div(3);
  EXPECT_LT((y - expected).abs().max().item<double>(), 1e-12) << y;
}

TEST(AnalogTiles, AGridKnowsItsTiles) {
  AnalogParameters p;
  p.tile_rows = 4;
  p.tile_columns = 2;
  const TileGrid grid(10, 3, p);
  EXPECT_EQ(grid.tiles(), 3);
  EXPECT_EQ(grid.count(2), 2);
  const at::Tensor w = numbers({3, 10});
  const at::Tensor mean = grid.mean_weights(w);
  ASSERT_EQ(mean.sizes(), (std::vector<int64_t>{3, 3}));
  const auto of = [&](int64_t output, int64_t outputs, int64_t input, int64_t inputs) {
    return w.narrow(0, output, outputs).narrow(1, input, inputs).abs().mean().item<double>();
  };
  EXPECT_NEAR(mean[0][0].item<double>(), of(0, 2, 0, 4), 1e-12);
  EXPECT_NEAR(mean[1][1].item<double>(), of(0, 2, 4, 4), 1e-12);
  EXPECT_NEAR(mean[2][2].item<double>(), of(2, 1, 8, 2), 1e-12);
  const at::Tensor each = grid.for_weights(mean);
  ASSERT_EQ(each.sizes(), w.sizes());
  EXPECT_EQ(each[2][9].item<double>(), mean[2][2].item<double>());
  EXPECT_EQ(each[1][3].item<double>(), mean[0][1].item<double>());
  // Nothing is divided by the largest of what is 0.
  EXPECT_TRUE(grid.largest_weights(at::zeros({3, 10}), "tile").eq(1).all().item<bool>());
  EXPECT_TRUE(grid.largest_inputs(at::zeros({2, 10})).eq(1).all().item<bool>());
}

}  // namespace analog_tiles_test
}  // namespace refract
