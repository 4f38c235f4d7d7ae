// The output layer and its loss in one op: logits of V columns never exist for the whole batch.
#pragma once
#include <ATen/core/Tensor.h>

#include <tuple>

#include "ops/common/op.h"

namespace refract {

inline constexpr int64_t kIgnoredTarget = -100;

// loss_sum: the sum of -log softmax(x W^T)[target] in nats, fp32 (float64 for float64 inputs), [].
// num_correct: how often the arg max (the lowest index among equals) is the target, int64, [].
struct CrossEntropy {
  at::Tensor loss_sum, num_correct;
};

// x [..., C], weight [Vp, C], targets [...] int64 or int32, num_classes V <= Vp. Rows V..Vp of the
// weight are padding: they take no part and their gradient is zero. A target of kIgnoredTarget
// counts nowhere. Any other target outside [0, V) is an error on the CPU and makes the loss NaN on
// CUDA, where asking would stop the stream. The gradient is made in the forward pass where an
// input requires one; backward only multiplies it by the (device) scalar that comes in.
struct LinearCrossEntropyInputs {
  const at::Tensor &x, &weight, &targets;
  int64_t num_classes;
};
inline constexpr Op<"linear_cross_entropy", CrossEntropy(LinearCrossEntropyInputs)>
    linear_cross_entropy;

// The op below autograd: (loss_sum, num_correct, dx, dweight) with the gradients of loss_sum, empty
// ([0]) where not wanted; dx has x's type, dweight is fp32 for half types. chunk_rows = 0 chooses
// how many rows' logits exist at once.
struct CrossEntropyForwardInputs {
  const at::Tensor &x, &weight, &targets;
  int64_t num_classes;
  bool need_dx, need_dweight;
  int64_t chunk_rows = 0;
};
using CrossEntropyForward = std::tuple<at::Tensor, at::Tensor, at::Tensor, at::Tensor>;
inline constexpr Op<"linear_cross_entropy_forward", CrossEntropyForward(CrossEntropyForwardInputs)>
    linear_cross_entropy_forward;

// (x * scale) in fp32 (float64), rounded once to dtype. scale: fp32 or float64, one element.
struct ScaleCastInputs {
  const at::Tensor &x, &scale;
  at::ScalarType dtype;
};
inline constexpr Op<"scale_cast", at::Tensor(ScaleCastInputs)> scale_cast;

namespace composite {
CrossEntropyForward linear_cross_entropy_forward(const CrossEntropyForwardInputs& in);
at::Tensor scale_cast(const ScaleCastInputs& in);
}  // namespace composite

namespace cross_entropy {

// What a chunk of logits may hold on CUDA. Every chunk reads and writes dweight once (in fp32), so
// few large chunks are fast.
inline constexpr int64_t kChunkBytes = int64_t{512} << 20;

// Rows per chunk, a multiple of 128 that divides n evenly, so that rows * row_bytes <= limit_bytes.
int64_t chunk_rows(int64_t n, int64_t row_bytes, int64_t limit_bytes);

// The checked inputs as x [N, C], weight [Vp, C], targets [N], all contiguous and detached.
struct Inputs {
  at::Tensor x, weight, targets;
};
Inputs flatten(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& targets,
               int64_t num_classes);

}  // namespace cross_entropy
}  // namespace refract
