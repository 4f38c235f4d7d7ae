// causal_attention on CUDA tensors: checks, memory and the launch. Its gradient, and lengths that
// the kernel is not made for, take the composite form.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/attention/attention.h"
#include "ops/dense/attention/attention_kernel.h"

namespace refract {
namespace {

at::Tensor causal_attention_cuda(const at::Tensor& qkv_in, int64_t num_heads, int64_t num_kv_heads,
                                 double scale) {
  causal_attention_op::check(qkv_in, num_heads, num_kv_heads);
  const int64_t length = qkv_in.size(1), head_dim = qkv_in.size(2) / (num_heads + 2 * num_kv_heads);
  if (!has_cuda_dtype(qkv_in.scalar_type()) || !has_cuda_attention(length, head_dim))
    return composite::causal_attention(qkv_in, num_heads, num_kv_heads, scale);
  const c10::cuda::CUDAGuard guard(qkv_in.device());
  at::Tensor qkv = qkv_in.contiguous();
  if (reinterpret_cast<uintptr_t>(qkv.const_data_ptr()) % 16 != 0) qkv = qkv.clone();
  at::Tensor out = at::empty({qkv.size(0), length, num_heads * head_dim}, qkv.options());
  const ShortAttention args{cuda_dtype(qkv.scalar_type()),
                            qkv.const_data_ptr(),
                            out.mutable_data_ptr(),
                            qkv.size(0),
                            length,
                            num_heads,
                            num_kv_heads,
                            head_dim,
                            scale};
  check_launch("causal_attention", launch_short_attention(args, current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("causal_attention", causal_attention_cuda); }

}  // namespace refract
