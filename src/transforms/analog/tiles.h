// A matrix product on crossbar tiles, in plain tensor expressions and without gradients.
//
// A weight [N, K] is cut into tiles of at most `rows` of its K inputs and `columns` of its N
// outputs. A tile gets inputs u = x / r within [-1, 1] and holds w / g within [-1, 1]; what it
// gives is z = sum u w / g, disturbed and converted, and g r z of all tiles of an output are added
// digitally (Rasch et al., "Hardware-aware training for large-scale and diverse deep learning
// inference workloads using in-memory computing-based accelerators", Nature Communications 14,
// 2023, equations 1 to 4):
//   z <- z + s_r xi sqrt(sum u^2 |w| / g)               reading noise, s_r = read_noise
//        - c sum u_j (1 - (1 - j / n)^2) w_j / g        drop of voltage along wires of n inputs,
//          c = 0.05 a^3 - 0.2 a^2 + 0.5 a, a = 1.75e-6 ir_drop n sum |u w| / g
//        + s_o xi                                       s_o = out_noise
//   z <- the converter's: of 2^b - 1 levels within +-out_bound, around 0, or for "vector" of 2^b
//        levels from the smallest to the largest z of the tile's outputs, within the bound.
// Inputs have 2^b - 1 levels: round(u n) / n, n = 2^(b - 1) - 1.
#pragma once
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "transforms/analog/analog_parameters.h"

namespace refract {

// How a weight [N, K] lies on tiles.
class TileGrid {
 public:
  TileGrid(int64_t inputs, int64_t outputs, const AnalogParameters& parameters);

  int64_t tiles() const { return (inputs_ + rows_ - 1) / rows_; }  // of an output
  int64_t first(int64_t tile) const { return tile * rows_; }
  int64_t count(int64_t tile) const { return std::min(rows_, inputs_ - first(tile)); }
  int64_t rows() const { return rows_; }
  int64_t columns() const { return columns_; }

  // max |x| of each tile's inputs: [M, K] -> [M, tiles], 1 where all are 0.
  at::Tensor largest_inputs(const at::Tensor& rows_MK) const;
  // max |w| for each output of each tile, [tiles, N]: of the column itself ("column"), of its tile
  // ("tile"), of all ("tensor"); 1 where it is 0.
  at::Tensor largest_weights(const at::Tensor& weight_NK, const std::string& per) const;
  // mean |w| of the tile that an output of a tile belongs to, [tiles, N].
  at::Tensor mean_weights(const at::Tensor& weight_NK) const;
  // [M, tiles] -> [M, K] and [tiles, N] -> [N, K]: for each input, each weight.
  at::Tensor for_inputs(const at::Tensor& of_tiles) const;
  at::Tensor for_weights(const at::Tensor& of_tiles_TN) const;

 private:
  at::Tensor by_tile(const at::Tensor& x, bool sum) const;  // of |x| [n, K]: [n, tiles]
  at::Tensor over_columns(const at::Tensor& of_tiles_TN, bool sum) const;

  int64_t inputs_, outputs_, rows_, columns_;
};

// Which normal numbers the outputs of each tile get.
struct TileNoise {
  int64_t seed = 0;
  std::vector<uint64_t> out, reading;  // streams of each tile
  at::Tensor clock;                    // undefined where there is no noise
};

struct TiledProduct {
  const TileGrid& grid;
  const AnalogParameters& parameters;
  const at::Tensor& x_MK;        // of the type that is computed in
  const at::Tensor& weight_NK;   // the same type
  const at::Tensor& x_range;     // r, [M, tiles] or [tiles]
  const at::Tensor& w_range_TN;  // g
  const at::Tensor& out_TN;      // what a tile's output is multiplied by: g, or another where drift
                                 // is compensated
  const TileNoise& noise;
};

// Adds the product to y [M, N], which is contiguous and float, or double where the operands are.
void add_tiled_product(const TiledProduct& in, const at::Tensor& y_MN);

}  // namespace refract
