// Groups of linear layers outside a model, for benchmarks: any kinds, sized to a share of the dense
// parameters, beside the dense layers of the same shape.
#pragma once
#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "model/slots.h"
#include "transforms/rules.h"

namespace refract {

// A kind with parameters: what a rule says without its match.
struct KindChoice {
  std::string kind;        // "dense" or a registered name
  std::string label;       // "low_rank rank=192"
  std::string table_json;  // of the rule; empty: dense
};

// Every registered kind that stands for linear layers, for a feed-forward of `width`: those whose
// size can be set so that about `share` (0.63, 0.32) of the dense parameters are left, the others
// with their defaults. `only` limits the names; empty: all.
std::vector<KindChoice> kinds_for_width(int64_t width, double share,
                                        const std::vector<std::string>& only);

// One or two layers in a row, allocated and initialised.
class BenchLayers {
 public:
  BenchLayers(const KindChoice& kind, std::vector<ProjectionSpec> groups, at::Device device,
              at::ScalarType dtype);
  at::Tensor forward(const at::Tensor& x, bool training);
  // The same by the merged dense matrices in plain tensor expressions; undefined where a kind has
  // none.
  at::Tensor reference(const at::Tensor& x);
  int64_t parameters() const { return arena_.count(); }
  ParameterArena& arena() { return arena_; }

 private:
  at::Tensor merged(const ProjectionSpec& spec) const;

  ParameterArena arena_;
  BufferStore buffers_;
  std::vector<TransformedLayer> transformed_;
  std::vector<ProjectionSpec> specs_;
  std::vector<std::unique_ptr<Projections>> groups_;
  at::Tensor clock_;
};

// up [C, F] with GELU and down [F, C], without biases as the dense comparison has none.
std::vector<ProjectionSpec> feed_forward(int64_t width, int64_t inner);
std::vector<ProjectionSpec> single_layer(int64_t in, int64_t out);

}  // namespace refract
