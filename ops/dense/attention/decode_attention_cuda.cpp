// decode_attention on CUDA tensors: checks, memory and the launch.
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <limits>

#include "ops/common/dispatch.h"
#include "ops/common/launch.h"
#include "ops/dense/attention/decode_attention.h"
#include "ops/dense/attention/decode_attention_kernel.h"

namespace refract {
namespace {

bool side_by_side(const at::Tensor& t) { return t.stride(-1) == 1 && t.stride(-2) == t.size(-1); }

bool aligned(const at::Tensor& t) {
  const auto vector = static_cast<int64_t>(16 / t.element_size());
  bool whole = reinterpret_cast<uintptr_t>(t.const_data_ptr()) % 16 == 0;
  for (int64_t i = 0; i + 1 < t.dim(); ++i) whole = whole && t.stride(i) % vector == 0;
  return whole;
}

at::Tensor decode_attention_cuda(const at::Tensor& q_in, const at::Tensor& keys,
                                 const at::Tensor& values, const at::Tensor& lengths_in,
                                 double scale) {
  decode_attention_op::check(q_in, keys, values, lengths_in);
  const bool known = has_cuda_dtype(q_in.scalar_type()) &&
                     decode_attention_fits(q_in.size(2), cuda_dtype(q_in.scalar_type()));
  const at::Tensor q = side_by_side(q_in) && aligned(q_in) ? q_in : q_in.contiguous();
  if (!known || !side_by_side(keys) || keys.strides() != values.strides() || !aligned(keys) ||
      !aligned(values) || !aligned(q)) {
    return composite::decode_attention(q_in, keys, values, lengths_in, scale);
  }
  const c10::cuda::CUDAGuard guard(q.device());
  const at::Tensor lengths = lengths_in.contiguous();
  at::Tensor out = at::empty(q.sizes(), q.options());
  if (out.numel() == 0) return out;
  TORCH_CHECK(q.size(0) * keys.size(1) <= std::numeric_limits<int32_t>::max(),
              "refract::decode_attention: expected at most 2^31 key heads in all");
  DecodeAttentionArgs a{};
  a.q = q.const_data_ptr();
  a.keys = keys.const_data_ptr();
  a.values = values.const_data_ptr();
  a.lengths = lengths.const_data_ptr<int64_t>();
  a.out = out.mutable_data_ptr();
  a.q_stride = q.stride(0);
  a.batch_stride = keys.stride(0);
  a.head_stride = keys.stride(1);
  a.batch = static_cast<int>(q.size(0));
  a.heads = static_cast<int>(q.size(1));
  a.key_heads = static_cast<int>(keys.size(1));
  a.places = static_cast<int>(keys.size(2));
  a.head_dim = static_cast<int>(q.size(2));
  a.scale = static_cast<float>(scale);
  check_launch("decode_attention", launch_decode_attention(a, cuda_dtype(q.scalar_type()),
                                                           multiprocessors(), current_stream()));
  return out;
}

}  // namespace

TORCH_LIBRARY_IMPL(refract, CUDA, m) { m.impl("decode_attention", decode_attention_cuda); }

}  // namespace refract
