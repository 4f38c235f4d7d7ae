#include "bench/layers.h"

#include <gtest/gtest.h>

#include "bench/inputs.h"
#include "bench/timing.h"

namespace refract {
namespace layers_test {

TEST(BenchLayers, DenseLayersHaveTheirMatricesAlone) {
  BenchLayers layers({"dense", "dense", ""}, feed_forward(64, 256), at::kCPU, at::kFloat);
  EXPECT_EQ(layers.parameters(), 2 * 64 * 256);
}

// The published sizes: about the asked share of the dense parameters, and the computation of the
// merged matrices.
TEST(BenchLayers, StructuredKindsAreSizedToTheShareAndComputeTheirMergedForm) {
  const int64_t width = 192;
  const auto groups = feed_forward(width, 4 * width);
  const at::Tensor x = random_input(8, width, BenchDevice{});
  for (const double share : {0.63, 0.32}) {
    const auto kinds = kinds_for_width(width, share, {"low_rank", "block_dense", "block_shuffle"});
    ASSERT_EQ(kinds.size(), 3u);
    for (const KindChoice& kind : kinds) {
      BenchLayers layers(kind, groups, at::kCPU, at::kFloat);
      const double found = static_cast<double>(layers.parameters()) / (8.0 * width * width);
      EXPECT_NEAR(found, share, 0.01) << kind.label;
      EXPECT_LT(relative_difference(layers.forward(x, false), layers.reference(x)),
                allowed_difference(at::kFloat))
          << kind.label;
    }
  }
}

}  // namespace layers_test
}  // namespace refract
