// What a training call frees between its forward and its backward pass, because it is cheap to
// compute again: train.recompute = "cheap". A product keeps its input for its weight's gradient.
// Where that input is a norm's or an activation function's output, the numbers that it was computed
// from are kept anyway.
#pragma once
#include <ATen/core/Tensor.h>

#include <functional>

namespace refract {

// Computes a tensor again: the same bits in the same layout. It runs in the backward pass, without
// gradients, and must own what it reads.
using Remake = std::function<at::Tensor()>;

// Whether this thread records gradients in a RecomputeScope of Recompute::kCheap.
bool frees_cheap();

// Who made a tensor says how to make it again. Does nothing where !frees_cheap().
void can_remake(const at::Tensor& made, Remake remake);

// `value` has been read for the last time until the gradient of `result`, which was computed from
// it: its memory is freed, and filled again as soon as that gradient is there. Does nothing where
// nobody said how to make it again, where !frees_cheap(), or where `result` has no gradient.
// `value` must have its storage for itself.
void free_until_backward(const at::Tensor& value, const at::Tensor& result);
void free_until_backward(const at::Tensor& value, const at::Tensor& result, Remake remake);

}  // namespace refract
