#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include "ops/common/define.h"
#include "ops/common/launch.h"
#include "ops/dense/activation/activation.h"
#include "ops/many/split.h"
#include "ops/many/split_attention_kernel.h"
#include "ops/many/split_kernel.h"
#include "ops/many/split_norm_kernel.h"

namespace refract {
namespace {

at::Tensor split(BeforeSplit before, const at::Tensor& x_in) {
  at::AutoDispatchBelowADInplaceOrView guard;
  const char* op = before == BeforeSplit::kNothing ? "split_bfloat16" : "split_gelu_bfloat16";
  split_op::check(op, "x", x_in);
  const c10::cuda::CUDAGuard device(x_in.device());
  const at::Tensor x = x_in.contiguous();
  const int64_t width = x.size(-1);
  if (width % 4 != 0 || reinterpret_cast<uintptr_t>(x.const_data_ptr()) % 16 != 0) {
    const at::Tensor y = before == BeforeSplit::kNothing
                             ? x
                             : bias_gelu(x, std::nullopt, before == BeforeSplit::kGeluTanh);
    const at::Tensor high = y.to(at::kBFloat16);
    return at::cat({high, high, y.sub(high.to(at::kFloat)).to(at::kBFloat16)}, -1);
  }
  std::vector<int64_t> sizes = x.sizes().vec();
  sizes.back() *= 3;
  at::Tensor out = at::empty(sizes, x.options().dtype(at::kBFloat16));
  check_launch(
      op, launch_split_bfloat16(before, x.const_data_ptr<float>(), out.mutable_data_ptr(),
                                x.numel() / std::max<int64_t>(width, 1), width, current_stream()));
  return out;
}

at::Tensor split_cuda(const SplitInputs& in) { return split(BeforeSplit::kNothing, in.x); }

at::Tensor split_gelu_cuda(const SplitGeluInputs& in) {
  return split(in.tanh_form ? BeforeSplit::kGeluTanh : BeforeSplit::kGeluErf, in.x);
}

bool aligned(const at::Tensor& t) {
  return !t.defined() || reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
}

SplitNormResult split_norm_cuda(const SplitNormInputs& in) {
  split_norm::check(in);
  at::AutoDispatchBelowADInplaceOrView guard;
  const c10::cuda::CUDAGuard device(in.x.device());
  const auto dense = [](const std::optional<at::Tensor>& t) {
    return t ? t->contiguous() : at::Tensor();
  };
  const at::Tensor x = in.x.contiguous(), residual = dense(in.residual), weight = dense(in.weight),
                   bias = dense(in.bias);
  const int64_t columns = x.size(2);
  if (columns % 4 != 0 || columns > kWidestSplitNorm || !aligned(x) || !aligned(residual) ||
      !aligned(weight) || !aligned(bias))
    return composite::split_norm_bfloat16(in);
  const auto pointer = [](const at::Tensor& t) {
    return t.defined() ? t.const_data_ptr<float>() : nullptr;
  };
  at::Tensor y = at::empty({x.size(0), x.size(1), 3 * columns}, x.options().dtype(at::kBFloat16));
  at::Tensor sum = residual.defined() ? at::empty_like(x) : at::empty({0}, x.options());
  const SplitNorm args{x.const_data_ptr<float>(),
                       pointer(residual),
                       pointer(weight),
                       pointer(bias),
                       y.mutable_data_ptr(),
                       residual.defined() ? sum.mutable_data_ptr<float>() : nullptr,
                       x.size(0) * x.size(1),
                       columns,
                       std::max<int64_t>(x.size(1), 1),
                       static_cast<float>(in.eps),
                       in.rms};
  check_launch("split_norm_bfloat16", launch_split_norm(args, current_stream()));
  return {y, sum};
}

at::Tensor split_attention_cuda(const CausalAttentionInputs& in) {
  causal_attention_op::check(in.qkv, in.num_heads, in.num_kv_heads);
  const int64_t length = in.qkv.size(1),
                head_dim = in.qkv.size(2) / (in.num_heads + 2 * in.num_kv_heads);
  const c10::cuda::CUDAGuard device(in.qkv.device());
  const at::Tensor qkv = in.qkv.contiguous();
  if (qkv.scalar_type() != at::kFloat || !has_cuda_split_attention(length, head_dim) ||
      !aligned(qkv))
    return composite::split_causal_attention(in);
  at::Tensor out = at::empty({qkv.size(0), length, 3 * in.num_heads * head_dim},
                             qkv.options().dtype(at::kBFloat16));
  const SplitAttention args{qkv.const_data_ptr<float>(),
                            out.mutable_data_ptr(),
                            qkv.size(0),
                            length,
                            in.num_heads,
                            in.num_kv_heads,
                            head_dim,
                            in.scale};
  check_launch("split_causal_attention", launch_split_attention(args, current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(refract, m) {
  forms(m, split_bfloat16).cuda<split_cuda>();
  forms(m, split_gelu_bfloat16).cuda<split_gelu_cuda>();
  forms(m, split_norm_bfloat16).cuda<split_norm_cuda>();
  forms(m, split_causal_attention).cuda<split_attention_cuda>();
}

}  // namespace refract
