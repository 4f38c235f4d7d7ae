#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/zeros.h>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/embedding/embedding.h"
#include "ops/dense/embedding/embedding_kernel.h"

namespace refract {
namespace {

at::Tensor embed_cuda(const at::Tensor& tokens_in, const at::Tensor& wte_in,
                      const std::optional<at::Tensor>& wpe_in, int64_t position_offset) {
  if (!has_cuda_dtype(wte_in.scalar_type())) {
    return composite::embed(tokens_in, wte_in, wpe_in, position_offset);
  }
  embedding::check(tokens_in, wte_in, wpe_in, position_offset);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(wte_in.device());
  const at::Tensor tokens = tokens_in.contiguous(), wte = wte_in.contiguous();
  const int64_t length = tokens.size(1), width = wte.size(1);
  at::Tensor wpe;
  if (wpe_in && wpe_in->defined()) wpe = wpe_in->narrow(0, position_offset, length).contiguous();
  at::Tensor out = at::empty({tokens.size(0), length, width}, wte.options());
  check_launch("embed",
               launch_embed(cuda_dtype(wte.scalar_type()), tokens.const_data_ptr(),
                            tokens.scalar_type() == at::kLong, wte.const_data_ptr(), wte.size(0),
                            wpe.defined() ? wpe.const_data_ptr() : nullptr, tokens.numel(), length,
                            width, out.mutable_data_ptr(), current_stream()));
  return out;
}

at::Tensor embed_backward_cuda(const at::Tensor& grad_in, const at::Tensor& tokens, int64_t rows) {
  if (!has_cuda_dtype(grad_in.scalar_type())) {
    return composite::embed_backward(grad_in, tokens, rows);
  }
  embedding::check_backward(grad_in, tokens);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(grad_in.device());
  const at::Tensor grad = grad_in.contiguous();
  const int64_t n = tokens.numel(), width = grad.size(-1);
  // A stable sort keeps equal tokens in the order of their positions.
  const auto [sorted, order] = at::sort(tokens.reshape({-1}), /*stable=*/true, 0, false);
  at::Tensor out = at::zeros({rows, width}, grad.options());
  const int64_t tiles = (n + kEmbedTile - 1) / kEmbedTile;
  const at::Tensor scratch = at::empty({2 * tiles * width}, grad.options().dtype(at::kFloat));
  check_launch(
      "embed_backward",
      launch_embed_backward(cuda_dtype(grad.scalar_type()), sorted.const_data_ptr(),
                            sorted.scalar_type() == at::kLong, order.const_data_ptr<int64_t>(), n,
                            grad.const_data_ptr(), rows, width, scratch.mutable_data_ptr<float>(),
                            out.mutable_data_ptr(), current_stream()));
  return out;
}

at::Tensor positions_backward_cuda(const at::Tensor& grad_in, int64_t positions,
                                   int64_t position_offset) {
  if (!has_cuda_dtype(grad_in.scalar_type())) {
    return composite::embed_positions_backward(grad_in, positions, position_offset);
  }
  embedding::check_positions(grad_in, positions, position_offset);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(grad_in.device());
  const at::Tensor grad = grad_in.contiguous();
  at::Tensor out = at::empty({positions, grad.size(2)}, grad.options());
  check_launch(
      "embed_positions_backward",
      launch_embed_positions_backward(cuda_dtype(grad.scalar_type()), grad.const_data_ptr(),
                                      grad.size(0), grad.size(1), grad.size(2), positions,
                                      position_offset, out.mutable_data_ptr(), current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) {
  m.impl("embed", &embed_cuda);
  m.impl("embed_backward", &embed_backward_cuda);
  m.impl("embed_positions_backward", &positions_backward_cuda);
}

}  // namespace refract
