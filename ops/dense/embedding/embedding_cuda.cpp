#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/embedding/embedding.h"
#include "ops/dense/embedding/embedding_kernel.h"

namespace refract {
namespace {

at::Tensor embed_cuda(const EmbedInputs& in) {
  if (!has_cuda_dtype(in.wte.scalar_type())) {
    return composite::embed(in);
  }
  embedding::check(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(in.wte.device());
  const at::Tensor tokens = in.tokens.contiguous(), wte = in.wte.contiguous();
  const int64_t length = tokens.size(1), width = wte.size(1);
  at::Tensor wpe;
  if (in.wpe && in.wpe->defined()) wpe = in.wpe->narrow(0, in.position_offset, length).contiguous();
  at::Tensor out = at::empty({tokens.size(0), length, width}, wte.options());
  check_launch("embed",
               launch_embed(cuda_dtype(wte.scalar_type()), tokens.const_data_ptr(),
                            tokens.scalar_type() == at::kLong, wte.const_data_ptr(), wte.size(0),
                            wpe.defined() ? wpe.const_data_ptr() : nullptr, tokens.numel(), length,
                            width, out.mutable_data_ptr(), current_stream()));
  return out;
}

at::Tensor embed_backward_cuda(const EmbedBackwardInputs& in) {
  if (!has_cuda_dtype(in.grad.scalar_type())) {
    return composite::embed_backward(in);
  }
  embedding::check_backward(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(in.grad.device());
  const at::Tensor grad = in.grad.contiguous();
  const int64_t n = in.tokens.numel(), width = grad.size(-1);
  // A stable sort keeps equal tokens in the order of their positions.
  const auto [sorted, order] = at::sort(in.tokens.reshape({-1}), /*stable=*/true, 0, false);
  at::Tensor out = at::zeros({in.rows, width}, grad.options());
  const int64_t tiles = (n + kEmbedTile - 1) / kEmbedTile;
  const at::Tensor scratch = at::empty({2 * tiles * width}, grad.options().dtype(at::kFloat));
  check_launch("embed_backward",
               launch_embed_backward(cuda_dtype(grad.scalar_type()), sorted.const_data_ptr(),
                                     sorted.scalar_type() == at::kLong,
                                     order.const_data_ptr<int64_t>(), n, grad.const_data_ptr(),
                                     in.rows, width, scratch.mutable_data_ptr<float>(),
                                     out.mutable_data_ptr(), current_stream()));
  return out;
}

at::Tensor positions_backward_cuda(const EmbedPositionsBackwardInputs& in) {
  if (!has_cuda_dtype(in.grad.scalar_type())) {
    return composite::embed_positions_backward(in);
  }
  embedding::check_positions(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(in.grad.device());
  const at::Tensor grad = in.grad.contiguous();
  at::Tensor out = at::empty({in.positions, grad.size(2)}, grad.options());
  check_launch("embed_positions_backward",
               launch_embed_positions_backward(cuda_dtype(grad.scalar_type()),
                                               grad.const_data_ptr(), grad.size(0), grad.size(1),
                                               grad.size(2), in.positions, in.position_offset,
                                               out.mutable_data_ptr(), current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, embed).cuda<embed_cuda>();
  forms(m, embed_backward).cuda<embed_backward_cuda>();
  forms(m, embed_positions_backward).cuda<positions_backward_cuda>();
}

}  // namespace refract
