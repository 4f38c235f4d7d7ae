// causal_attention on CUDA tensors: checks, memory and the launch. Its gradient, and lengths that
// the kernel is not made for, take the composite form.
#include <ATen/ops/empty.h>

#include "ops/common/define.h"
#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/attention/attention.h"
#include "ops/dense/attention/attention_kernel.h"

namespace refract {
namespace {

at::Tensor causal_attention_cuda(const CausalAttentionInputs& in) {
  causal_attention_op::check(in.qkv, in.num_heads, in.num_kv_heads);
  const int64_t length = in.qkv.size(1),
                head_dim = in.qkv.size(2) / (in.num_heads + 2 * in.num_kv_heads);
  if (!has_cuda_dtype(in.qkv.scalar_type()) || !has_cuda_attention(length, head_dim))
    return composite::causal_attention(in);
  const c10::cuda::CUDAGuard guard(in.qkv.device());
  at::Tensor qkv = in.qkv.contiguous();
  if (reinterpret_cast<uintptr_t>(qkv.const_data_ptr()) % 16 != 0) qkv = qkv.clone();
  at::Tensor out = at::empty({qkv.size(0), length, in.num_heads * head_dim}, qkv.options());
  const ShortAttention args{cuda_dtype(qkv.scalar_type()),
                            qkv.const_data_ptr(),
                            out.mutable_data_ptr(),
                            qkv.size(0),
                            length,
                            in.num_heads,
                            in.num_kv_heads,
                            head_dim,
                            in.scale};
  check_launch("causal_attention", launch_short_attention(args, current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) { forms(m, causal_attention).cuda<causal_attention_cuda>(); }

}  // namespace refract
