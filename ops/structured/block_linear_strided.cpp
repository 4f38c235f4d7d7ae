// block_linear by strided batched products, for the CPU and for CUDA alike: what differs lies in
// ATen's own dispatch, so one file serves both. Views carry every regrouping of features; the GEMM
// reads them through leading dimensions and batch strides.
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/structured/block_linear.h"
#include "ops/structured/transposed_copy.h"

namespace refract {
namespace {

// [..., F] -> [n, F], a copy only where the strides admit no view.
at::Tensor rows(const at::Tensor& x) {
  const int64_t features = x.size(-1);
  return x.reshape({features == 0 ? 0 : x.numel() / features, features});
}

// The matrix [n, F] as a GEMM can read it: one of its strides is 1, the one of the rows where
// features are interleaved.
at::Tensor readable(const at::Tensor& x, bool interleaved) {
  if (x.stride(0) == 1 && x.stride(1) >= std::max<int64_t>(1, x.size(0))) return x;
  if (interleaved && x.size(0) > 1) return transposed_copy(x).t();
  return x.stride(1) == 1 ? x : x.contiguous();
}

// [n, B k] -> [B, n, k], always a view.
at::Tensor blocks_of(const at::Tensor& x, int64_t blocks, bool interleaved) {
  const int64_t n = x.size(0), each = x.size(1) / blocks;
  return interleaved ? x.view({n, each, blocks}).permute({2, 0, 1})
                     : x.view({n, blocks, each}).permute({1, 0, 2});
}

// a [B, n, k] times b [B, k, m] as a matrix [n, B m].
at::Tensor product(const at::Tensor& a, const at::Tensor& b, bool interleaved, bool feature_major) {
  const int64_t blocks = a.size(0), n = a.size(1), width = blocks * b.size(2);
  const bool by_feature = feature_major || (interleaved && n > 1);
  at::Tensor y =
      by_feature ? at::empty({width, n}, a.options()).t() : at::empty({n, width}, a.options());
  at::Tensor view = blocks_of(y, blocks, interleaved);
  at::bmm_out(view, a, b);
  return by_feature && !feature_major ? transposed_copy(y.t()) : y;
}

at::Tensor forward(const BlockLinearInputs& in) {
  block_linear_op::check("block_linear", in.x, in.weight);
  const at::Tensor w = in.weight.contiguous();
  const at::Tensor from = blocks_of(readable(rows(in.x), in.layout.interleaved_in), w.size(0),
                                    in.layout.interleaved_in);
  auto sizes = in.x.sizes().vec();
  sizes.back() = w.size(0) * w.size(1);
  return product(from, w.transpose(1, 2), in.layout.interleaved_out, in.layout.feature_major)
      .view(sizes);
}

BlockLinearGradients backward(const BlockLinearBackwardInputs& in) {
  block_linear_op::check_backward(in);
  const at::Tensor w = in.weight.contiguous();
  const at::Tensor g =
      blocks_of(readable(rows(in.grad), in.interleaved_out), w.size(0), in.interleaved_out);
  at::Tensor grad_x, grad_weight;
  if (in.wanted[0])
    grad_x = product(g, w, in.interleaved_in, is_feature_major(in.x)).view(in.x.sizes());
  if (in.wanted[1]) {
    const at::Tensor from =
        blocks_of(readable(rows(in.x), in.interleaved_in), w.size(0), in.interleaved_in);
    grad_weight = at::bmm(g.transpose(1, 2), from);
  }
  return {grad_x, grad_weight};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, block_linear).cpu<forward>().cuda<forward>();
  forms(m, block_linear_backward).cpu<backward>().cuda<backward>();
}

}  // namespace refract
