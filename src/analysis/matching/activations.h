// Which units, heads and channels of two models are active on the same tokens.
#pragma once
#include <ATen/core/Tensor.h>

#include <map>
#include <string>

#include "data/tokens.h"
#include "model/decoder.h"

namespace refract {

// Sums over tokens of what two models feed into one group of layers, features [n] each.
struct CrossStatistics {
  int64_t tokens = 0;
  at::Tensor sum_a, sum_b, squares_a, squares_b;  // float64 [n]
  at::Tensor products;                            // float64 [n, n]: sum of a_i b_j

  // Pearson's correlation of feature i of A with feature j of B; 0 where one of them is constant.
  at::Tensor correlation() const;
  // `products` of the features less a constant each, [n].
  at::Tensor products_less(const at::Tensor& a, const at::Tensor& b) const;
};

// By the name of the first layer of the group that reads them: "model.layers.0.self_attn.q_proj"
// (normalized residual stream), "...self_attn.o_proj" (outputs of the query heads side by side),
// "...mlp.up_proj" or "...mlp.gate_proj" (normalized residual stream), "...mlp.down_proj" (units).
// Both models are dense, on the CPU in fp32; `windows` windows of `context` tokens from the start
// of the stream.
std::map<std::string, CrossStatistics> cross_statistics(Decoder& a, Decoder& b,
                                                        const TokenStream& stream, int64_t context,
                                                        int64_t windows);

}  // namespace refract
