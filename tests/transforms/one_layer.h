// One linear layer of a kind outside a model, in float64 on the CPU.
#pragma once
#define AT_PER_OPERATOR_HEADERS  // TensorOperators.h alone, not all functions
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "model/parameters.h"
#include "model/slots.h"
#include "transforms/kind.h"

namespace refract::testing {

inline at::Tensor normal(at::IntArrayRef sizes) {
  return at::randn(sizes, at::TensorOptions().dtype(at::kDouble));
}

inline void expect_same(const at::Tensor& a, const at::Tensor& b, double tolerance = 1e-10) {
  ASSERT_EQ(a.sizes(), b.sizes());
  EXPECT_LT((a - b).abs().max().item<double>(), tolerance);
}

// "layer" [out, in] of the kind that a rule's table says (JSON, see make_kind), allocated and
// drawn.
struct OneLayer {
  explicit OneLayer(const std::string& table, int64_t in = 12, int64_t out = 16, uint64_t seed = 1)
      : kind(make_kind(table, "the test")) {
    const LinearSpec spec{"layer", in, out};
    kind->check_shape(spec);
    layer = kind->linear({arena, buffers, transformed}, spec);
    arena.allocate(at::kCPU, at::kDouble, at::kDouble);
    arena.initialize(seed);
    layer->initialize(seed);
  }
  at::Tensor forward(const at::Tensor& x) const {
    ForwardContext context;
    context.clock = at::zeros({2}, at::kLong);
    return layer->forward(context, x);
  }
  at::Tensor value(const char* name) { return arena.value(arena.find(name)); }

  ParameterArena arena;
  BufferStore buffers;
  std::vector<TransformedLayer> transformed;
  std::unique_ptr<Kind> kind;
  std::unique_ptr<LinearLayer> layer;
};

}  // namespace refract::testing
