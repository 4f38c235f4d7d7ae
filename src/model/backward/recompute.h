// Which activations a training call keeps for its backward pass.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "model/parameters.h"

namespace refract {

// kCheap: not what is cheap to compute again, see remake.h. kLayer: of each decoder layer only its
// inputs; the backward pass computes the layer once more. Noise, dropout and ranges are those of
// the first time, and so are the bits.
enum class Recompute { kNone, kCheap, kLayer };

// "none", "cheap" or "layer", as train.recompute says it.
Recompute recompute_of(const std::string& name);

// Of the training calls of this thread while it lives; kNone outside of any.
class RecomputeScope {
 public:
  explicit RecomputeScope(Recompute what);
  ~RecomputeScope();
  RecomputeScope(const RecomputeScope&) = delete;
  RecomputeScope& operator=(const RecomputeScope&) = delete;

  static Recompute current();

 private:
  Recompute before_;
};

// Whether this thread computes a segment for the second time. What the first time wrote outside of
// buffers, as a parameter that data sets, is still there and must not be moved again.
bool computes_again();

// What is computed twice: the same from the same inputs and buffers. It must own what it reads.
using Segment = std::function<std::vector<at::Tensor>(const std::vector<at::Tensor>& inputs)>;

// segment(inputs), of which autograd keeps the inputs alone and the values of `buffers`: float
// state that the segment reads and moves. A second computation finds those as the first did, and
// leaves them as they are then. Leaves inside get their gradients, whether or not an input has one.
std::vector<at::Tensor> recomputed(const std::vector<at::Tensor>& inputs,
                                   const std::vector<BufferStore::Buffer*>& buffers,
                                   const Segment& segment);

}  // namespace refract
